//! What an agent tells an executor in its environment.
//!
//! Source: the Mesos page "Executor HTTP API", section "Environment variables"; recorded in
//! `01-executor.txt` among the test fixtures.

use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::address::MasterAddress;
use super::authentication;
use super::connection::Endpoint;
use super::duration;
use crate::secret::Secret;

/// The path of the executor API at the agent's own port.
const EXECUTOR_PATH: &str = "/api/v1/executor";

/// How long an agent waits for executors when it does not say (`--recovery_timeout`).
const DEFAULT_RECOVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The longest wait between two tries to subscribe when the agent does not say
/// (`--executor_reregistration_timeout`).
const DEFAULT_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long the agent waits for an executor to shut down when it does not say.
const DEFAULT_SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// An executor's place in the Mesos cluster, from its `MESOS_*` variables.
#[derive(Debug, Clone)]
pub struct ExecutorEnvironment {
    /// Where the agent is: `MESOS_DOMAIN_SOCKET`, else `MESOS_AGENT_ENDPOINT`.
    pub agent: Endpoint,
    /// The path of the executor API there.
    pub(super) path: PathAndQuery,
    /// The agent's id, if it was told (`MESOS_SLAVE_ID`).
    pub agent_id: Option<String>,
    /// The framework that launched the executor (`MESOS_FRAMEWORK_ID`).
    pub framework_id: String,
    /// The executor's own id (`MESOS_EXECUTOR_ID`).
    pub executor_id: String,
    /// The working directory (`MESOS_SANDBOX`, else `MESOS_DIRECTORY`).
    pub sandbox: PathBuf,
    /// Whether the agent, when it comes back, looks for the executor (`MESOS_CHECKPOINT`).
    pub checkpoint: bool,
    /// How long a restarted agent waits for the executor before it gives it up
    /// (`MESOS_RECOVERY_TIMEOUT`). The executor itself goes on for longer.
    pub recovery_timeout: Duration,
    /// The longest wait between two tries to subscribe (`MESOS_SUBSCRIPTION_BACKOFF_MAX`).
    pub subscription_backoff_max: Duration,
    /// How long the agent waits after SHUTDOWN before it kills the container
    /// (`MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD`).
    pub shutdown_grace_period: Duration,
    /// What proves to the agent who asks (`MESOS_EXECUTOR_AUTHENTICATION_TOKEN`).
    pub token: Option<Secret>,
}

/// Everything that is wrong with an executor's environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process is not started by a Mesos agent, or not rightly: {}; `cotton executor` is launched by agents and not by hand",
    .0.join("; ")
)]
pub struct EnvironmentError(pub Vec<String>);

impl ExecutorEnvironment {
    /// Reads the environment through `get`, which gives the value of a variable that is set.
    ///
    /// # Errors
    ///
    /// [`EnvironmentError`] with all faults in one sentence.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let mut reader = Reader {
            get,
            faults: Vec::new(),
        };
        let (agent, path) = reader.agent();
        let environment = Self {
            agent,
            path,
            agent_id: reader.optional("MESOS_SLAVE_ID"),
            framework_id: reader.required("MESOS_FRAMEWORK_ID"),
            executor_id: reader.required("MESOS_EXECUTOR_ID"),
            sandbox: reader.sandbox(),
            checkpoint: reader.optional("MESOS_CHECKPOINT").as_deref() == Some("1"),
            recovery_timeout: reader.duration("MESOS_RECOVERY_TIMEOUT", DEFAULT_RECOVERY_TIMEOUT),
            subscription_backoff_max: reader
                .duration("MESOS_SUBSCRIPTION_BACKOFF_MAX", DEFAULT_BACKOFF_MAX),
            shutdown_grace_period: reader.duration(
                "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
                DEFAULT_SHUTDOWN_GRACE_PERIOD,
            ),
            token: reader.token(),
        };
        if reader.faults.is_empty() {
            Ok(environment)
        } else {
            Err(EnvironmentError(reader.faults))
        }
    }
}

/// Reads variables and collects what is wrong with them.
struct Reader<F> {
    get: F,
    faults: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn optional(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.faults.push(format!("{name} is not set"));
            String::new()
        })
    }

    fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let value = self.optional(name);
        let parsed = value.map_or(Ok(default), |value| duration::parse(&value));
        parsed.unwrap_or_else(|error| {
            self.faults.push(format!("{name}: {error}"));
            default
        })
    }

    fn sandbox(&mut self) -> PathBuf {
        match self.optional("MESOS_SANDBOX") {
            Some(sandbox) => sandbox.into(),
            None => self.required("MESOS_DIRECTORY").into(),
        }
    }

    fn token(&mut self) -> Option<Secret> {
        let name = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN";
        let token = self.optional(name).map(Secret::new)?;
        if authentication::bearer(&token).is_none() {
            self.faults.push(format!(
                "{name} has characters that no HTTP header can carry"
            ));
        }
        Some(token)
    }

    /// The domain socket takes only the path with the agent's process name in it, `slave(1)`, which
    /// stands before the @ of its pid (`src/slave/slave.cpp`).
    fn agent(&mut self) -> (Endpoint, PathAndQuery) {
        let api = PathAndQuery::from_static(EXECUTOR_PATH);
        let Some(socket) = self.optional("MESOS_DOMAIN_SOCKET") else {
            let name = "MESOS_AGENT_ENDPOINT";
            let text = self.required(name);
            if let Err(error) = MasterAddress::parse(&text)
                && !text.is_empty()
            {
                self.faults.push(format!("{name}: {error}"));
            }
            return (Endpoint::Tcp(text), api);
        };
        let pid = self.required("MESOS_SLAVE_PID");
        let path = pid
            .split_once('@')
            .and_then(|(process, _)| format!("/{process}{EXECUTOR_PATH}").parse().ok());
        if path.is_none() && !pid.is_empty() {
            self.faults.push(format!(
                "MESOS_SLAVE_PID: {pid:?} is not name@address, as in slave(1)@10.0.0.1:5051"
            ));
        }
        (Endpoint::Unix(socket.into()), path.unwrap_or(api))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// The variables that the recorded executor had.
    fn recorded(name: &str) -> Option<String> {
        let transcript = include_str!("../../tests/fixtures/mesos/01-executor.txt");
        let end = transcript.find("\n}\n").unwrap();
        let json = &transcript[transcript.find('{').unwrap()..end + 2];
        let variables: serde_json::Value = serde_json::from_str(json).unwrap();
        variables[name].as_str().map(str::to_owned)
    }

    #[test]
    fn the_recorded_environment_is_understood() {
        let environment = ExecutorEnvironment::from_variables(recorded).unwrap();
        assert_eq!(environment.agent, Endpoint::Tcp("127.0.0.1:5051".into()));
        assert_eq!(environment.path, "/api/v1/executor");
        assert_eq!(environment.executor_id, "t1");
        assert!(environment.framework_id.ends_with("-0000"));
        assert!(
            environment
                .sandbox
                .ends_with("02a232e1-af07-43b0-b4a4-e73e46bdf6b3")
        );
        assert!(environment.checkpoint);
        assert_eq!(environment.recovery_timeout, Duration::from_secs(120));
        assert_eq!(environment.subscription_backoff_max, Duration::from_secs(2));
        assert_eq!(environment.shutdown_grace_period, Duration::from_secs(5));
        assert_eq!(environment.token, None);
    }

    #[test]
    fn a_domain_socket_is_preferred_with_the_agents_name_in_the_path() {
        let environment = ExecutorEnvironment::from_variables(|name| match name {
            "MESOS_DOMAIN_SOCKET" => Some("/run/mesos.sock".into()),
            "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" => Some("hunter2".into()),
            name => recorded(name),
        })
        .unwrap();
        assert_eq!(environment.agent.to_string(), "unix:/run/mesos.sock");
        assert_eq!(environment.path, "/slave(1)/api/v1/executor");
        assert!(!format!("{environment:?}").contains("hunter2"));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let error = ExecutorEnvironment::from_variables(|name| match name {
            "MESOS_AGENT_ENDPOINT" => Some("nowhere".into()),
            "MESOS_RECOVERY_TIMEOUT" => Some("soon".into()),
            "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" => Some("a\nb".into()),
            _ => None,
        })
        .unwrap_err()
        .to_string();
        for part in [
            "MESOS_AGENT_ENDPOINT: \"nowhere\" is not the address",
            "MESOS_FRAMEWORK_ID is not set",
            "MESOS_EXECUTOR_ID is not set",
            "MESOS_DIRECTORY is not set",
            "MESOS_RECOVERY_TIMEOUT: \"soon\" is not a duration",
            "MESOS_EXECUTOR_AUTHENTICATION_TOKEN has characters",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
