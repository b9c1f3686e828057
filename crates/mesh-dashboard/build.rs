//! Packs `dashboard-static/` into the program: every file as it is and compressed, and one name for all of them.
//!
//! The name is a hash over all files. It becomes a folder of their addresses, so that browsers may keep what they have
//! for ever, modules find each other by relative paths, and no two versions are ever mixed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboard-static");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed={}", root.display());
    let mut paths = Vec::new();
    walk(&root, &root, &mut paths)?;
    paths.sort();

    let mut all = Sha256::new();
    let mut code = String::from("&[\n");
    for (index, path) in paths.iter().enumerate() {
        let file = root.join(path);
        println!("cargo:rerun-if-changed={}", file.display());
        let bytes = fs::read(&file)?;
        all.update(path);
        all.update(Sha256::digest(&bytes));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&bytes)?;
        let packed = out.join(format!("{index}.gz"));
        fs::write(&packed, gzip.finish()?)?;
        writeln!(
            code,
            "    File {{ path: {path:?}, plain: include_bytes!({file:?}), gzip: include_bytes!({packed:?}) }},"
        )
        .expect("a String takes everything");
    }
    code += "]\n";
    fs::write(out.join("files.rs"), code)?;
    let hash: String = all
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("cargo:rustc-env=MESH_ASSETS={hash}");
    Ok(())
}

/// The paths of all files below `folder`, relative to `root`, with `/` between their parts.
fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            println!("cargo:rerun-if-changed={}", path.display());
            walk(root, &path, paths)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            paths.push(name.replace('\\', "/"));
        }
    }
    Ok(())
}
