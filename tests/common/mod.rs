//! Shared by the tests over real HTTP.

#![allow(dead_code, reason = "each test uses its part")]

use elephant_types::TaskContext;

/// The server under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_elephant-server");

/// What the client sends for the first frame of its sample (contract section 1.8), numbers as Java prints them.
pub const CLIENT_PREDICT: &str = r#"{"dataset_name":"dataset","model_name":"detection.pth","n_keep_axials":3,
    "scales":[0.2767553206210389,0.2767553206210389,2.1605444611492426],"c_ratio":0.4,"p_thresh":0.5,"r_min":1,"r_max":5,
    "debug":false,"output_prediction":false,"use_median":false,"is_pad":true,"cache_maxbytes":1073741824,"is_3d":true,
    "use_2d":false,"use_memmap":true,"batch_size":1,"input_size":[256,256,8],"patch":[384,384,24],"timepoint":0}"#;

/// A movie made for the test.
pub struct DemoMovie {
    pub content: Vec<u8>,
    /// (t, z, y, x).
    pub shape: [usize; 4],
    /// (x, y, z).
    pub scales: [f64; 3],
}

/// The smallest synthetic embryo.
pub fn demo_movie() -> DemoMovie {
    todo!()
}
