//! Example bodies of `POST /v1/jobs`, for the documentation: one for each kind of task.

use serde_json::Value;
use utoipa::openapi::{
    OpenApi, RefOr,
    example::{Example, ExampleBuilder},
};

/// The name of each task, and a body with all fields that people usually set.
pub(crate) const EXAMPLES: [(&str, &str); 12] = [
    ("generate", include_str!("examples/generate.json")),
    ("predict", include_str!("examples/predict.json")),
    ("reset", include_str!("examples/reset.json")),
    ("update", include_str!("examples/update.json")),
    ("erase_labels", include_str!("examples/erase_labels.json")),
    ("train", include_str!("examples/train.json")),
    ("predict_flow", include_str!("examples/predict_flow.json")),
    ("update_flow", include_str!("examples/update_flow.json")),
    ("erase_flow_labels", include_str!("examples/erase_flow_labels.json")),
    ("track", include_str!("examples/track.json")),
    ("fit", include_str!("examples/fit.json")),
    ("steer", include_str!("examples/steer.json")),
];

/// Adds the examples to the body of `POST /v1/jobs`.
pub(crate) fn add_to(document: &mut OpenApi) {
    let submit = document.paths.paths.get_mut("/v1/jobs").and_then(|path| path.post.as_mut());
    let Some(RefOr::T(body)) = submit.and_then(|submit| submit.request_body.as_mut()) else { return };
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        content.examples = EXAMPLES.into_iter().filter_map(example).collect();
    }
}

fn example((name, text): (&str, &str)) -> Option<(String, RefOr<Example>)> {
    // The tests parse every text.
    let value: Value = serde_json::from_str(text).ok()?;
    Some((name.to_owned(), RefOr::T(ExampleBuilder::new().value(Some(value)).build())))
}

#[cfg(test)]
mod tests {
    use elephant_pipeline::Task;

    use super::*;

    #[test]
    fn every_example_is_a_valid_task() {
        for (name, text) in EXAMPLES {
            let task: Task = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            task.validate().unwrap();
            let sent = serde_json::to_value(&task).unwrap();
            assert_eq!(sent.as_object().unwrap().keys().collect::<Vec<_>>(), [name]);
            assert_eq!(serde_json::from_value::<Task>(sent).unwrap(), task);
        }
    }

    #[test]
    fn the_manual_has_every_example() {
        let manual = include_str!("../../../docs/services.md");
        for (name, text) in EXAMPLES {
            assert!(manual.contains(text.trim_end()), "docs/services.md lacks the example {name}");
        }
    }
}
