//! `mesh.toml`: the files of `fixtures/valid` load; those of `fixtures/invalid` are refused with exactly the
//! problems that their `# expect:` lines name, all of them at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_runtime::{Config, ConfigError};

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 2, "there are fixtures in {kind}");
    files
}

fn problems(result: Result<Config, ConfigError>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn minimal() -> PathBuf {
    fixtures("valid")
        .into_iter()
        .find(|path| path.ends_with("minimal.toml"))
        .unwrap()
}

#[test]
fn valid_files_load() {
    for file in fixtures("valid") {
        assert_eq!(
            problems(Config::load(&file, [], &[])),
            [""; 0],
            "{}",
            file.display()
        );
    }
}

#[test]
fn invalid_files_are_refused_with_every_problem() {
    let mut wrong = String::new();
    for file in fixtures("invalid") {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect: "))
            .collect();
        assert!(!expected.is_empty(), "{} says what to expect", file.display());
        let found = problems(Config::load(&file, [], &[]));
        if found != expected {
            wrong += &format!("{}:\n{}\n", file.display(), found.join("\n"));
        }
    }
    assert!(
        wrong.is_empty(),
        "files with other problems than they expect:\n{wrong}"
    );
}

#[test]
fn the_environment_beats_the_file_and_a_flag_beats_both() {
    let environment = env(&[
        ("MESH__HEALTH__DEAD_AFTER", "3s"),
        ("MESH__BALANCER__WORKER_CONNECTIONS", "99"),
    ]);
    let config = Config::load(&minimal(), environment.clone(), &[]).unwrap();
    assert_eq!(config.health.dead_after, Duration::from_secs(3));
    assert_eq!(config.balancer.worker_connections, 99);
    let set = env(&[("health.dead_after", "4s")]);
    let config = Config::load(&minimal(), environment, &set).unwrap();
    assert_eq!(config.health.dead_after, Duration::from_secs(4));
}

#[test]
fn a_wrong_override_is_reported_by_its_name() {
    let environment = env(&[
        ("MESH__HEALTH__DEAD_AFTER", "1000"),
        ("MESH__HEALTH__DEAD_AFTRE", "2s"),
        ("MESH__BALANCER__WORKER_CONNECTIONS", "1.9"),
        ("MESH_CONFIG", "elsewhere"),
    ]);
    let found = problems(Config::load(
        &minimal(),
        environment,
        &env(&[("health.listen", "localhost:1")]),
    ));
    assert_eq!(
        found,
        [
            "--set health.listen: health.listen: \"localhost:1\" is not an IP address with a port",
            "MESH__BALANCER__WORKER_CONNECTIONS: balancer.worker_connections: \"1.9\" is not a whole number",
            "MESH__HEALTH__DEAD_AFTER: health.dead_after: \"1000\" is not a duration; write a number and a unit, \
             e.g. \"250ms\"",
            "MESH__HEALTH__DEAD_AFTRE: health.dead_aftre: unknown key; did you mean health.dead_after?",
        ]
    );
}

#[test]
fn lists_cannot_be_overridden_in_part() {
    let found = problems(Config::load(
        &minimal(),
        env(&[("MESH__BROKER__0__ID", "other")]),
        &[],
    ));
    assert!(
        found
            .iter()
            .any(|problem| problem.contains("lists cannot be overridden")),
        "{found:?}"
    );
}

#[test]
fn a_missing_file_says_how_to_name_one() {
    let error = Config::load(Path::new("/nonexistent/mesh.toml"), [], &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/mesh.toml; name it with --config or MESH_CONFIG"),
        "{error}"
    );
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = Config::load(&minimal(), [], &[]).unwrap();
    assert_eq!(
        config.security.secrets_dir,
        minimal().parent().unwrap().join("secrets")
    );
    assert_eq!(
        config.balancer.program,
        Path::new("nginx"),
        "a program without a slash is looked up in PATH"
    );
}
