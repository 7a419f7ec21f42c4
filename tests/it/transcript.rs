//! The recorded conversations under `tests/fixtures/mesos`, entry by entry.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

/// One thing that somebody sent, received or noted.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Seconds since the recording began, as written.
    pub time: String,
    /// `scheduler`, `executor`, `operator` or `note`.
    pub who: String,
    /// The rest of the first line.
    pub head: String,
    /// What follows it, without the blank lines around it.
    pub body: String,
}

impl Entry {
    /// A message of a stream.
    pub fn is_event(&self) -> bool {
        self.head.starts_with("<< event ")
    }

    /// A request with a body.
    pub fn is_call(&self) -> bool {
        self.head.starts_with(">> POST ")
    }
}

/// All recordings by file name.
pub fn all() -> Vec<(String, Vec<Entry>)> {
    let folder = crate::support::in_project("tests/fixtures/mesos");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, parse(&std::fs::read_to_string(path).unwrap())));
        }
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found
}

fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        if let Some(entry) = first_line(line) {
            entries.push(entry);
        } else if let Some(entry) = entries.last_mut() {
            entry.body.push_str(line);
            entry.body.push('\n');
        }
    }
    for entry in &mut entries {
        entry.body = entry.body.trim().to_owned();
    }
    entries
}

/// `   0.124 scheduler >> POST ...`
fn first_line(line: &str) -> Option<Entry> {
    let (time, rest) = line.trim_start().split_once(' ')?;
    time.parse::<f64>().ok()?;
    let (who, head) = rest.split_once(' ')?;
    ["scheduler", "executor", "operator", "note"]
        .contains(&who)
        .then(|| Entry {
            time: time.to_owned(),
            who: who.to_owned(),
            head: head.to_owned(),
            body: String::new(),
        })
}

/// One recording, by the first part of its file's name, for example `01-subscribe`.
pub fn one(prefix: &str) -> Vec<Entry> {
    let found = all().into_iter().find(|(name, _)| name.starts_with(prefix));
    let (_, entries) = found.unwrap_or_else(|| panic!("no recording {prefix}"));
    entries
}
