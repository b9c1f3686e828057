//! On macOS a shared library may not leave symbols open by default; ours are found in the broker that loads it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-undefined,dynamic_lookup");
        println!("cargo:rustc-link-arg-examples=-Wl,-undefined,dynamic_lookup");
    }
}
