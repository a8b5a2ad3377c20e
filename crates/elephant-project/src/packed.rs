//! The packed form of spots for callers that draw them: 64 bytes each, little-endian (docs/projects.md, "Packed spots").

use elephant_types::{Lineage, SpotId};

use crate::{ProjectSpot, View};

/// Bytes of a packed spot.
pub const PACKED_BYTES: usize = 64;

/// The spots of a view, in its order. Their tracks are those of the view's lineage, numbered from 1; 0 where a spot has no
/// track because `lineage` is of another view.
pub fn pack_spots(view: &View, lineage: &Lineage) -> Vec<u8> {
    let tracks = lineage.tracks();
    let mut bytes = Vec::with_capacity(view.spots.len() * PACKED_BYTES);
    for (spot, id) in view.spots.iter().zip((0..).map(SpotId)) {
        let track = if id.index() < lineage.len() { tracks.of_spot(id).get() } else { 0 };
        pack_spot(spot, track, &mut bytes);
    }
    bytes
}

fn pack_spot(spot: &ProjectSpot, track: u32, bytes: &mut Vec<u8>) {
    let [z, y, x] = spot.spot.covariance_um2;
    bytes.extend_from_slice(&spot.key.0.to_le_bytes());
    bytes.extend_from_slice(&(spot.spot.t as u32).to_le_bytes());
    for value in spot.spot.center_um.iter().chain(&[z[0], z[1], z[2], y[1], y[2], x[2], spot.spot.quality]) {
        bytes.extend_from_slice(&(*value as f32).to_le_bytes());
    }
    bytes.push(spot.detection as u8);
    bytes.push(spot.tracking as u8);
    bytes.extend_from_slice(&spot.flags.to_le_bytes());
    bytes.extend_from_slice(&track.to_le_bytes());
    bytes.extend_from_slice(&spot.author.to_le_bytes());
}
