//! The floors of the house: which crate may depend on which. No arrow points upward, and no daemon knows another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every crate of the workspace and the crates of the workspace that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("mesh-model", &[]),
    ("mesh-client", &[]),
    ("mesh-plugin", &["mesh-model"]),
    ("mesh-runtime", &["mesh-model"]),
    ("mesh-render", &["mesh-model", "mesh-runtime"]),
    ("mesh-health", &["mesh-model", "mesh-runtime", "mesh-render"]),
    ("mesh-dashboard", &["mesh-model", "mesh-runtime", "mesh-store"]),
    ("mesh-store", &["mesh-model"]),
    ("mesh-logs", &["mesh-model", "mesh-runtime", "mesh-store"]),
    ("mesh-lab", &["mesh-model", "mesh-runtime", "mesh-render"]),
    ("mesh-chaos", &["mesh-model", "mesh-runtime", "mesh-lab"]),
    (
        "mesh-scenarios",
        &[
            "mesh-model",
            "mesh-runtime",
            "mesh-render",
            "mesh-lab",
            "mesh-chaos",
        ],
    ),
    (
        "meshctl",
        &[
            "mesh-chaos",
            "mesh-model",
            "mesh-runtime",
            "mesh-render",
            "mesh-store",
            "mesh-lab",
        ],
    ),
];

#[test]
fn dependencies_follow_the_arrows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(crates).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let Ok(text) = std::fs::read_to_string(&manifest) else {
            continue;
        };
        let manifest: toml_edit::DocumentMut = text.parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let allowed = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in ARROWS; add it"));
        // Tests may look at anything, so only what ends up in the programs counts.
        let dependencies = manifest.get("dependencies").and_then(|item| item.as_table_like());
        for (dependency, _) in dependencies.into_iter().flat_map(|table| table.iter()) {
            let ours = ARROWS.iter().any(|(name, _)| *name == dependency);
            assert!(
                !ours || allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
        seen.insert(name);
    }
    let listed: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, listed, "ARROWS names exactly the crates that exist");
}

#[test]
fn the_vocabulary_does_no_io_and_reads_no_clock() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("mesh-model/src");
    let mut files = 0;
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for forbidden in [
            "std::fs",
            "std::io",
            "std::time",
            "std::env",
            "TcpStream",
            "Timestamp::now",
            "tokio",
        ] {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
        }
        files += 1;
    }
    assert!(files > 5, "the sources of mesh-model were found");
}
