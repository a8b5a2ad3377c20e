//! Lets the binaries find libtorch where they were built, without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Not canonicalised: it goes through the link .deps/libtorch, which `make setup CUDA=1` turns to other libraries.
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
