//! Lets the binaries find libtorch where they were built, without LD_LIBRARY_PATH.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let folder = std::fs::canonicalize(&folder).map_or(folder, |real| real.display().to_string());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
