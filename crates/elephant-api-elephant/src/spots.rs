//! The lists of spots that requests bring, above all of tagged ones for updates of labels and trainings (docs/protocol.md, "POST /seg/update").

use std::{borrow::Cow, fmt, marker::PhantomData};

use elephant_types::{SpotTag, TaggedSpot};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};
use utoipa::ToSchema;

use crate::{
    number::Integer,
    vector::{zyx, zyx_covariance},
};

/// The largest number of spots in a request, which take about half a gigabyte while their labels are drawn; the client's take 300 bytes of
/// text each.
const MAX_SPOTS: usize = 1_000_000;
/// Longest name of a spot that is kept, for messages.
const MAX_LABEL_CHARS: usize = 60;

/// A tagged spot in a request; it becomes a [`TaggedSpot`] at once.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SpotBody {
    /// Timepoint, from 0.
    #[schema(value_type = u64)]
    t: Integer,
    /// Centre (x, y, z).
    pos: [f64; 3],
    /// Row by row, (x, y, z); the ellipsoid's semi-axes are the square roots of its eigenvalues.
    covariance: [f64; 9],
    /// tp, fp, tn, fn, tb or fb.
    #[schema(value_type = String, example = "tp")]
    tag: Tag,
    /// The spot's name, for messages.
    #[serde(default)]
    label: Option<Box<str>>,
    /// The client's number of the spot; used where there is no name.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    id: Option<Integer>,
}

struct Tag(SpotTag);

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// The field `spots`: a list of [`SpotBody`].
pub(crate) type Spots = List<Spot>;

/// An element of a list, as it is sent.
pub(crate) trait Element {
    /// What it becomes at once.
    type Value;

    /// What it becomes.
    fn value(self) -> Self::Value;
}

/// A list of spots, of limited length. What a body says of them is not kept.
#[derive(Serialize)]
#[serde(transparent, bound(serialize = "E::Value: Serialize"))]
pub(crate) struct List<E: Element>(pub(crate) Vec<E::Value>);

impl<E: Element> Default for List<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, E: Element + Deserialize<'de>> Deserialize<'de> for List<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<E>(PhantomData<E>);

impl<'de, E: Element + Deserialize<'de>> Visitor<'de> for ListVisitor<E> {
    type Value = List<E>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of spots")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<E>, A::Error> {
        let mut spots = Vec::new();
        while let Some(spot) = list.next_element::<E>()? {
            if spots.len() == MAX_SPOTS {
                return Err(A::Error::custom(format!("there are more than {MAX_SPOTS}; send fewer spots at once")));
            }
            spots.push(spot.value());
        }
        Ok(List(spots))
    }
}

/// One element of the list.
#[derive(Deserialize)]
#[serde(try_from = "SpotBody")]
pub(crate) struct Spot(TaggedSpot);

impl Element for Spot {
    type Value = TaggedSpot;

    fn value(self) -> TaggedSpot {
        self.0
    }
}

impl TryFrom<SpotBody> for Spot {
    type Error = &'static str;

    fn try_from(body: SpotBody) -> Result<Self, Self::Error> {
        let shortened = |label: Box<str>| match label.char_indices().nth(MAX_LABEL_CHARS) {
            Some((end, _)) => format!("{}…", &label[..end]).into(),
            None => label,
        };
        let id = || body.id.map_or_else(Box::default, |id| id.0.to_string().into());
        Ok(Self(TaggedSpot {
            t: body.t.to_usize().ok_or("t must be 0 or more")?,
            center_um: zyx(body.pos),
            covariance_um2: zyx_covariance(body.covariance),
            tag: body.tag.0,
            label: body.label.map_or_else(id, shortened),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body {
        spots: Spots,
    }

    fn parse(spot: &str) -> Result<TaggedSpot, String> {
        let body = elephant_api_core::parse::<Body>(format!("{{\"spots\":[{spot}]}}").as_bytes());
        body.map(|body| body.spots.0.into_iter().next().unwrap()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_clients_spot_is_turned_to_zyx() {
        let text = r#"{"t":0,"pos":[20,20.5,8.0E-1],"covariance":[11,12,13,21,22,23,31,32,33],"label":"12","id":7,"tag":"fn"}"#;
        let spot = parse(text).unwrap();
        assert_eq!(spot.center_um, [0.8, 20.5, 20.0]);
        assert_eq!(spot.covariance_um2, [[33.0, 32.0, 31.0], [23.0, 22.0, 21.0], [13.0, 12.0, 11.0]]);
        assert_eq!((spot.t, spot.tag, &*spot.label), (0, SpotTag::FalseNegative, "12"));
    }

    #[test]
    fn integers_may_look_like_floats_and_names_may_miss() {
        let spot = parse(r#"{"t":3.0,"pos":[1,2,3],"covariance":[1,0,0,0,1,0,0,0,1],"id":7.0,"tag":"tb"}"#).unwrap();
        assert_eq!((spot.t, &*spot.label), (3, "7"));
        let long = format!(
            r#"{{"t":3,"pos":[1,2,3],"covariance":[1,0,0,0,1,0,0,0,1],"label":"{}","tag":"tb"}}"#,
            "ä".repeat(500)
        );
        assert_eq!(parse(&long).unwrap().label.chars().count(), MAX_LABEL_CHARS + 1);
    }

    #[test]
    fn wrong_fields_are_named() {
        let good = r#""t":0,"pos":[1,2,3],"covariance":[1,0,0,0,1,0,0,0,1],"tag":"tp""#;
        for (from, to, word) in [
            (r#""tp""#, r#""unlabeled""#, "spots[0].tag: the tag \"unlabeled\" is not known"),
            (r#""tp""#, "1", "spots[0].tag"),
            (r#","tag":"tp""#, "", "tag"),
            (r#""t":0"#, r#""t":-1"#, "t must be 0 or more"),
            (r#""t":0"#, r#""t":0.5"#, "spots[0].t: 0.5 is not an integer"),
            ("[1,2,3]", "[1,2]", "spots[0].pos"),
            ("[1,2,3]", "[1,2,null]", "spots[0].pos[2]"),
            ("[1,2,3]", "[1,2,NaN]", "not valid"),
            ("[1,2,3]", "[1,2,1e999]", "not valid"),
            ("[1,0,0,0,1,0,0,0,1]", "[1,0,0]", "spots[0].covariance"),
        ] {
            let message = parse(&format!("{{{}}}", good.replace(from, to))).unwrap_err();
            assert!(message.contains(word), "{to}: {message}");
        }
        assert!(parse(&format!("{{{good}}}")).is_ok());
        let many = vec![format!("{{{good}}}"); MAX_SPOTS + 1].join(",");
        assert!(parse(&many).unwrap_err().contains("more than 1000000"));
    }
}
