//! Compiles the CRI protocol.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/api.proto");
    tonic_prost_build::compile_protos("proto/api.proto")?;
    Ok(())
}
