//! Vectors and rotations in three dimensions, (z, y, x).

pub(crate) type Vector = [f64; 3];
/// Columns are the axes of a body.
pub(crate) type Rotation = [[f64; 3]; 3];

pub(crate) fn add(a: Vector, b: Vector) -> Vector {
    std::array::from_fn(|i| a[i] + b[i])
}

pub(crate) fn sub(a: Vector, b: Vector) -> Vector {
    std::array::from_fn(|i| a[i] - b[i])
}

pub(crate) fn scale(a: Vector, factor: f64) -> Vector {
    a.map(|component| component * factor)
}

pub(crate) fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(crate) fn norm(a: Vector) -> f64 {
    dot(a, a).sqrt()
}

/// The vector of length 1 in the same direction; the x axis for vectors of length 0.
pub(crate) fn unit(a: Vector) -> Vector {
    let length = norm(a);
    if length > 1e-12 { scale(a, 1.0 / length) } else { [0.0, 0.0, 1.0] }
}

fn cross(a: Vector, b: Vector) -> Vector {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// A rotation whose first axis is `first`, and whose second lies in the plane of `first` and `second` (Gram–Schmidt).
pub(crate) fn rotation_from(first: Vector, second: Vector) -> Rotation {
    let a = unit(first);
    let rest = sub(second, scale(a, dot(a, second)));
    // When the two are parallel, any direction across will do.
    let across = if norm(rest) > 1e-6 * norm(second) { rest } else { cross(a, [a[1], a[2], a[0] + 1.0]) };
    let b = unit(across);
    let c = cross(a, b);
    std::array::from_fn(|row| [a[row], b[row], c[row]])
}

/// One axis of a body.
pub(crate) fn axis(rotation: &Rotation, index: usize) -> Vector {
    [rotation[0][index], rotation[1][index], rotation[2][index]]
}

/// Turns a body a little about `turn`, by the length of `turn` in radians.
pub(crate) fn turned(rotation: &Rotation, turn: Vector) -> Rotation {
    let moved = |index| {
        let old = axis(rotation, index);
        add(old, cross(turn, old))
    };
    rotation_from(moved(0), moved(1))
}

/// The coordinates of `a` along the axes of a body.
pub(crate) fn into_body(rotation: &Rotation, a: Vector) -> Vector {
    std::array::from_fn(|index| dot(axis(rotation, index), a))
}
