//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Relocations of a static, position-independent program, packed: 2.5 MB less. The program relocates itself.
    println!("cargo:rustc-link-arg-bins=-Wl,--pack-dyn-relocs=relr");
}
