//! The REST API as scripts use it: through curl.

use serde_json::Value;

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error} in the answer {self:?}"))
    }

    /// The body's text under `key`.
    pub fn text_of(&self, key: &str) -> String {
        let json = self.json();
        let text = json[key].as_str().map(str::to_owned);
        text.unwrap_or_else(|| panic!("no {key} in {json}"))
    }
}

/// Runs curl with these arguments. `None` when nobody answered.
pub async fn curl(arguments: &[&str]) -> Option<Answer> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["-sS", "--max-time", "60", "-w", "\n%{http_code}"]);
    command.args(arguments);
    answer_of(command).await
}

/// Runs a command line in a shell with `$H` as the API's URL, as it stands in the user guide.
pub async fn line(api: &str, line: &str) -> Answer {
    let mut command = tokio::process::Command::new("bash");
    command
        .args([
            "-c",
            &format!("{line} -sS --max-time 60 -w '\\n%{{http_code}}'"),
        ])
        .env("H", api);
    let answer = answer_of(command).await;
    answer.unwrap_or_else(|| panic!("nobody answered: {line}"))
}

async fn answer_of(mut command: tokio::process::Command) -> Option<Answer> {
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (text, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    let status = status.trim().parse().unwrap_or(0);
    // 000 is curl's word for no answer.
    (output.status.success() && status != 0).then(|| Answer {
        status,
        text: text.to_owned(),
    })
}
