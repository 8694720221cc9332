//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Relocations of a static, position-independent program, packed: 2.5 MB less. The program relocates itself.
    println!("cargo:rustc-link-arg-bins=-Wl,--pack-dyn-relocs=relr");
    // Cargo forgets `strip` of the profile for a package whose `opt-level` has a line of its own there.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--strip-all");
    }
}
