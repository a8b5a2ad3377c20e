//! `/download/ctc`: label images of tracked cells (docs/protocol.md, "POST /download/ctc").

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, LargeJson};
use elephant_jobs::RunningJob;
use elephant_pipeline::{MaskSpot, MasksRequest, PipelineError};
use elephant_types::{CancelToken, DatasetName};
use hyper::body::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{Receiver, Sender, channel},
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::refused,
    number::Integer,
    vector::{Xyz, voxel_size},
};

/// The most spots of a request.
const MAX_SPOTS: usize = 1_000_000;
/// Bytes that are sent at once.
const PIECE_BYTES: usize = 1 << 18;
/// Pieces that wait for a slow caller.
const WAITING_PIECES: usize = 8;
/// Until the archive has so many bytes, an abort or a failure is still answered as such; then the reply begins.
const HELD_BYTES: usize = 16 << 20;
/// How often a job that waits for a slow caller looks whether it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(200);

#[derive(Deserialize, ToSchema)]
pub(crate) struct MasksBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// The cells.
    #[serde(default)]
    #[schema(value_type = Vec<CellBody>)]
    spots: Cells,
    /// The first timepoint, from 0; absent: that of the earliest spot.
    #[schema(value_type = Option<u64>)]
    t_start: Option<Integer>,
    /// The last timepoint, inclusive; absent: that of the latest spot.
    #[schema(value_type = Option<u64>)]
    t_end: Option<Integer>,
}

/// A cell in a request; it becomes a [`MaskSpot`] at once.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CellBody {
    /// Timepoint, from 0.
    #[schema(value_type = u64)]
    t: Integer,
    /// Centre (x, y, z).
    pos: [f64; 3],
    /// Row by row, (x, y, z).
    covariance: [f64; 9],
    /// What its voxels become, 1 to 65535: the number of its track.
    #[schema(value_type = u16)]
    value: Integer,
}

/// The field `spots`: a list of [`CellBody`].
#[derive(Default)]
struct Cells(Vec<MaskSpot>);

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CellsVisitor;

        impl<'de> Visitor<'de> for CellsVisitor {
            type Value = Cells;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of spots")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cells, A::Error> {
                let mut cells = Vec::new();
                while let Some(Cell(cell)) = list.next_element()? {
                    if cells.len() == MAX_SPOTS {
                        return Err(A::Error::custom(format!("there are more than {MAX_SPOTS}; export fewer spots")));
                    }
                    cells.push(cell);
                }
                Ok(Cells(cells))
            }
        }

        deserializer.deserialize_seq(CellsVisitor)
    }
}

/// One element of the list.
#[derive(Deserialize)]
#[serde(try_from = "CellBody")]
struct Cell(MaskSpot);

impl TryFrom<CellBody> for Cell {
    type Error = &'static str;

    fn try_from(body: CellBody) -> Result<Self, &'static str> {
        let ([x, y, z], covariance) = (body.pos, body.covariance);
        let label = u16::try_from(body.value.0).ok().filter(|label| *label > 0);
        Ok(Self(MaskSpot {
            t: u32::try_from(body.t.0).map_err(|_| "t must be 0 or more")?,
            center_um: [z, y, x],
            covariance_um2: std::array::from_fn(|i| std::array::from_fn(|j| covariance[3 * (2 - i) + 2 - j])),
            label: label.ok_or("value must be 1 to 65535, the numbers that CTC masks can hold; export fewer tracks")?,
        }))
    }
}

/// Label images of tracked cells
///
/// A zip file of `maskNNN.tif`, one 16-bit image for each timepoint, which is sent while it is made. Aborted with
/// `POST /state/process {"state": 0}`: 204, or, after the first 16 MiB, the reply breaks off.
#[utoipa::path(
    post, path = "/download/ctc", tag = "dataset", request_body = MasksBody,
    responses(
        (status = 200, description = "The zip file", content_type = "application/zip"),
        (status = 204, description = "It was aborted"),
        (status = 400, description = "A field or spot is wrong"),
        (status = 404, description = "The dataset is not there"),
        (status = 409, description = "The dataset is being made"),
        (status = 413, description = "The body is too long"),
        (status = 500, description = "The export failed"),
        (status = 503, description = "The server is stopping, or is busy with other large requests"),
    )
)]
pub(crate) async fn download(
    State(api): State<ElephantApi>,
    LargeJson { value: body, memory }: LargeJson<MasksBody>,
) -> Result<Response, ApiError> {
    let timepoint = |field: &str, value: Option<Integer>| {
        let timepoint = value.map(|value| u32::try_from(value.0)).transpose();
        timepoint.map_err(|_| ApiError::bad_request(format!("{field} must be 0 or more")))
    };
    let request = MasksRequest {
        dataset: body.dataset_name.ok_or_else(|| ApiError::bad_request("dataset_name key is missing"))?,
        voxel_size: voxel_size(body.scales.as_deref())?,
        first: timepoint("t_start", body.t_start)?,
        last: timepoint("t_end", body.t_end)?,
        spots: body.spots.0,
    };
    let (sender, receiver) = channel(WAITING_PIECES);
    let (spec, use_cases, runtime) = (request.spec(), api.use_cases.clone(), Handle::current());
    let work = move |context: &_| {
        let _held = memory;
        let cancel = elephant_types::TaskContext::cancel_token(context).clone();
        let pieces = Pieces { sender, runtime, cancel, piece: Vec::with_capacity(PIECE_BYTES) };
        request.write(&use_cases, pieces, context)
    };
    let job = api.runner.start(spec, work).await.map_err(|error| refused("export", error))?;
    reply(job, receiver).await
}

/// The archive, or why there is none.
async fn reply(job: RunningJob<usize, PipelineError>, mut pieces: Receiver<Bytes>) -> Result<Response, ApiError> {
    let (mut held, mut bytes) = (Vec::new(), 0);
    while bytes < HELD_BYTES {
        let Some(piece) = pieces.recv().await else {
            let ended = job.ended().await.map_err(|error| refused("export", error))?;
            return Ok(match ended.done() {
                Some(_) => archive(Body::from(held.concat())),
                None => StatusCode::NO_CONTENT.into_response(),
            });
        };
        bytes += piece.len();
        held.push(piece);
    }
    // The status is sent now. What goes wrong later breaks the reply off, so that no caller takes a part for the whole.
    let end = async move {
        match job.ended().await {
            Ok(ended) if ended.clone().done().is_some() => None,
            Ok(_) => Some(Err(io::Error::other("the export was aborted"))),
            Err(error) => Some(Err(io::Error::other(ApiError::from(error).message().to_owned()))),
        }
    };
    let first = tokio_stream::iter(held).map(Ok);
    let rest = ReceiverStream::new(pieces).map(Ok);
    let end = futures_util::stream::once(end).filter_map(std::convert::identity);
    Ok(archive(Body::from_stream(first.chain(rest).chain(end))))
}

fn archive(body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    response
}

/// Sends what is written, piece by piece, and waits for a caller who takes it slowly.
struct Pieces {
    sender: Sender<Bytes>,
    runtime: Handle,
    cancel: CancelToken,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES)));
        loop {
            match self.runtime.block_on(async { timeout(CANCEL_CHECK, self.sender.reserve()).await }) {
                Ok(Ok(permit)) => {
                    permit.send(piece);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the caller has left")),
                // The task looks at its token after this write.
                Err(_) if self.cancel.is_cancelled() => return Err(io::Error::other("cancelled")),
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spot: &str) -> Result<MaskSpot, String> {
        let body = elephant_api_core::parse::<MasksBody>(format!("{{\"spots\":[{spot}]}}").as_bytes());
        body.map(|body| body.spots.0.into_iter().next().unwrap()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_clients_spot_is_turned_to_zyx() {
        let text = r#"{"t":3,"pos":[20,20.5,8.0E-1],"covariance":[11,12,13,21,22,23,31,32,33],"value":7}"#;
        let spot = parse(text).unwrap();
        assert_eq!(spot.center_um, [0.8, 20.5, 20.0]);
        assert_eq!(spot.covariance_um2, [[33.0, 32.0, 31.0], [23.0, 22.0, 21.0], [13.0, 12.0, 11.0]]);
        assert_eq!((spot.t, spot.label), (3, 7));
    }

    #[test]
    fn wrong_fields_are_named() {
        let good = r#""t":0,"pos":[1,2,3],"covariance":[1,0,0,0,1,0,0,0,1],"value":1"#;
        for (from, to, word) in [
            (r#""value":1"#, r#""value":65536"#, "1 to 65535"),
            (r#""value":1"#, r#""value":0"#, "1 to 65535"),
            (r#","value":1"#, "", "value"),
            (r#""t":0"#, r#""t":-1"#, "t must be 0 or more"),
            ("[1,2,3]", "[1,2]", "spots[0].pos"),
            ("[1,0,0,0,1,0,0,0,1]", "[1,0,0]", "spots[0].covariance"),
        ] {
            let message = parse(&format!("{{{}}}", good.replace(from, to))).unwrap_err();
            assert!(message.contains(word), "{to}: {message}");
        }
    }
}
