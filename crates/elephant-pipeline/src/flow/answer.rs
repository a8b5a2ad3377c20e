//! The one place that decides who answers where a cell was.

use elephant_types::TaskContext;

use super::{FlowAnswer, PredictFlowRequest};
use crate::{PipelineError, UseCases};

/// Where the cells of a request were in the frame before, in the order of the request. Cells may be left out, if they have
/// no place there.
///
/// The network answers for all cells, unless tracking of the whole movie does ([`Steering`](crate::Steering)).
///
/// # Errors
/// As [`FlowPredictor::predict`](super::FlowPredictor::predict).
pub fn answer_flow(
    use_cases: &UseCases,
    request: &PredictFlowRequest,
    context: &TaskContext,
) -> Result<Vec<FlowAnswer>, PipelineError> {
    match use_cases.steering.answer(request, context)? {
        Some(answers) => Ok(answers),
        None => use_cases.flow.predict(request, context),
    }
}
