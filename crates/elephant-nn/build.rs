//! Lets this crate's own tests and benchmarks find libtorch without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys says where it linked libtorch from; the path may be relative and pass through a link.
    let Some(folder) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    let folder = std::fs::canonicalize(&folder).unwrap_or_else(|_| folder.into());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
}
