//! The README says what is true: its table of settings is the one that the program prints.

use std::path::Path;
use std::process::Command;

#[test]
fn the_table_of_settings_is_the_one_that_meshctl_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["check", "--reference"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.lines().count() > 20, "{printed}");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("<!-- reference -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /reference -->").unwrap();
    assert_eq!(
        table, printed,
        "put the output of `meshctl check --reference` into README.md"
    );
}
