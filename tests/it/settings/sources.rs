//! Flags, environment variables and the configuration file: which goes before which, and where a fault is said to be.

use super::Setup;

#[test]
fn flags_go_before_variables_before_the_file_before_defaults() {
    let setup = Setup::new();
    let config = setup.file(
        "config.toml",
        "framework-role = 'from-file'\nelection_timeout = '7s'\nspread = 'require'\n[[executor-environ]]\nname = 'A'\nvalue = 'b'\n",
    );
    let setup = setup
        .with("config", &config)
        .with("spread", "prefer")
        .variable("COTTON_ELECTION_TIMEOUT", "8s")
        .variable("COTTON_SPREAD", "require")
        .variable("COTTON_LOG_FORMAT", "");
    let settings = setup.resolve().unwrap();
    assert_eq!(settings.framework_role, "from-file");
    assert_eq!(settings.election_timeout.as_secs(), 8);
    assert_eq!(settings.spread, cotton::cli::settings::Spread::Prefer);
    assert_eq!(settings.executor_environ[0].value, "b");
}

#[test]
fn the_file_can_be_named_by_a_variable_and_hold_everything() {
    let setup = Setup::new();
    let lines = setup.flags.iter().map(|(name, value)| match name.as_str() {
        "port" => format!("{name} = {value}\n"),
        _ => format!("{name} = '{value}'\n"),
    });
    let lines: String = lines.chain(["verbose = true\n".to_owned()]).collect();
    let config = setup.file("config.toml", &lines);
    let mut setup = setup.variable("COTTON_CONFIG", &config);
    setup.flags.clear();
    assert!(setup.resolve().unwrap().verbose);
}

#[test]
fn sentences_say_where_a_value_came_from() {
    let fault = Setup::new()
        .without("port")
        .variable("COTTON_PORT", "x")
        .fault();
    assert_eq!(
        fault,
        "--port (from the environment variable COTTON_PORT): \"x\" is not a port number from 1 to 65535"
    );
    let setup = Setup::new();
    let config = setup.file("c.toml", "volumes = 'x'");
    let fault = setup.with("config", &config).fault();
    assert_eq!(
        fault,
        format!("--volumes (from {config}): \"x\" is neither on nor off")
    );
}

#[test]
fn wrong_files_and_their_sentences() {
    for (content, sentence) in [
        ("zk-url = hunter2", "is not TOML"),
        ("prot = 1", "has the unknown key \"prot\""),
        ("config = 'x'", "has the unknown key \"config\""),
        ("zk_url = 'zk://a/b'\nzk-url = 'zk://a/c'", "has the key"),
        ("spread = 2020-01-01", "the value of spread is a date"),
    ] {
        let setup = Setup::new();
        let config = setup.file("c.toml", content);
        let fault = setup.with("config", &config).fault();
        assert!(
            fault.starts_with("--config: ") && fault.contains(sentence),
            "{content}: {fault}"
        );
    }
}
