//! Eigenvalues of small symmetric matrices.

/// Sweeps of rotations; convergence is quadratic and takes about six. The bound is for entries that are not finite.
const MOST_SWEEPS: usize = 30;

/// Eigenvalues in ascending order, and eigenvectors of length 1 as columns in the same order, of a symmetric matrix, usually
/// 2 × 2 or 3 × 3. Only the upper triangle is read.
///
/// Cyclic Jacobi rotations (Golub & Van Loan, "Matrix Computations", 8.5): short for such sizes, at ease with equal
/// eigenvalues, and as accurate for the small eigenvalues of positive definite matrices as for the large ones. Entries that
/// are not finite give results that are not finite.
pub(crate) fn symmetric_eigen<const N: usize>(matrix: [[f64; N]; N]) -> ([f64; N], [[f64; N]; N]) {
    let mut a = matrix;
    let mut vectors: [[f64; N]; N] = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    for _ in 0..MOST_SWEEPS {
        let mut is_diagonal = true;
        for p in 0..N {
            for q in p + 1..N {
                let negligible = f64::EPSILON / 2.0 * a[p][p].abs().sqrt() * a[q][q].abs().sqrt();
                if a[p][q].abs() > negligible {
                    is_diagonal = false;
                    rotate(&mut a, &mut vectors, p, q);
                }
            }
        }
        if is_diagonal {
            break;
        }
    }
    let mut order: [usize; N] = std::array::from_fn(|k| k);
    order.sort_by(|&i, &j| a[i][i].total_cmp(&a[j][j]));
    (order.map(|k| a[k][k]), vectors.map(|row| order.map(|k| row[k])))
}

/// Turns the axes `p` < `q` such that entry (p, q) becomes 0.
fn rotate<const N: usize>(a: &mut [[f64; N]; N], vectors: &mut [[f64; N]; N], p: usize, q: usize) {
    let cotangent_of_double = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    // The smaller of the two angles.
    let tangent = 1.0_f64.copysign(cotangent_of_double) / (cotangent_of_double.abs() + cotangent_of_double.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let shift = tangent * a[p][q];
    a[p][p] -= shift;
    a[q][q] += shift;
    a[p][q] = 0.0;
    let turned = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
    for k in (0..N).filter(|&k| k != p && k != q) {
        let ([p0, p1], [q0, q1]) = ([k.min(p), k.max(p)], [k.min(q), k.max(q)]);
        (a[p0][p1], a[q0][q1]) = turned(a[p0][p1], a[q0][q1]);
    }
    for row in vectors {
        (row[p], row[q]) = turned(row[p], row[q]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks that the vectors are orthonormal and that A·v = λ·v, to `tolerance` of the largest entry.
    fn assert_decomposes<const N: usize>(matrix: [[f64; N]; N], tolerance: f64) {
        let (values, v) = symmetric_eigen(matrix);
        let largest = matrix.iter().flatten().fold(0.0_f64, |largest, entry| largest.max(entry.abs()));
        assert!(values.is_sorted(), "{values:?}");
        for i in 0..N {
            for k in 0..N {
                let product: f64 = (0..N).map(|j| matrix[i][j] * v[j][k]).sum();
                assert!((product - values[k] * v[i][k]).abs() <= tolerance * largest, "{matrix:?} {values:?} {v:?}");
                let dot: f64 = (0..N).map(|j| v[j][i] * v[j][k]).sum();
                assert!((dot - f64::from(u8::from(i == k))).abs() < 1e-14, "{v:?}");
            }
        }
    }

    fn symmetric([a, b, c, d, e, f]: [f64; 6]) -> [[f64; 3]; 3] {
        [[a, b, c], [b, d, e], [c, e, f]]
    }

    #[test]
    fn a_diagonal_matrix_is_only_sorted() {
        let (values, vectors) = symmetric_eigen([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
        assert_eq!(values, [0.0, 1.0, 2.0]);
        assert_eq!(vectors, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
    }

    #[test]
    fn a_flat_shape_has_an_eigenvalue_of_exactly_zero() {
        let (values, vectors) = symmetric_eigen([[0.0, 0.0, 0.0], [0.0, 3.0, 1.5], [0.0, 1.5, 2.0]]);
        assert_eq!(values[0], 0.0);
        assert_eq!([vectors[0][0], vectors[1][0], vectors[2][0]], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn entries_that_are_not_finite_end() {
        for entry in [f64::NAN, f64::INFINITY, f64::MAX] {
            let (values, _) = symmetric_eigen(symmetric([1.0, entry, 2.0, -entry, 3.0, 4.0]));
            assert_eq!(values.len(), 3);
        }
    }

    proptest! {
        #[test]
        fn eigenvectors_satisfy_their_equation(entries in prop::array::uniform6(-1e3..1e3_f64)) {
            assert_decomposes(symmetric(entries), 1e-14);
            assert_decomposes([[entries[0], entries[1]], [entries[1], entries[2]]], 1e-14);
        }

        #[test]
        fn small_whole_numbers_have_many_equal_eigenvalues(entries in prop::array::uniform6(-2..3_i8)) {
            assert_decomposes(symmetric(entries.map(f64::from)), 1e-14);
        }

        #[test]
        fn any_scale_will_do(entries in prop::array::uniform6(-1.0..1.0_f64), exponent in -300..300_i32) {
            let scale = 10_f64.powi(exponent);
            assert_decomposes(symmetric(entries.map(|entry| entry * scale)), 1e-14);
        }

        /// The product of the eigenvalues is the determinant, for axes of very different scales too.
        #[test]
        fn small_eigenvalues_keep_their_digits(
            entries in prop::array::uniform3(-0.3..0.3_f64), exponents in prop::array::uniform3(-40..40_i32),
        ) {
            let ([b, c, e], scale) = (entries, exponents.map(|exponent| 10_f64.powi(exponent)));
            let well = symmetric([1.0, b, c, 1.0, e, 1.0]);
            let badly = std::array::from_fn(|i| std::array::from_fn(|j| well[i][j] * scale[i] * scale[j]));
            let (values, _) = symmetric_eigen::<3>(badly);
            let determinant = 1.0 + 2.0 * b * c * e - b * b - c * c - e * e;
            let squares: f64 = scale.iter().map(|scale| scale * scale).product();
            let product: f64 = values.iter().product();
            prop_assert!((product / (determinant * squares) - 1.0).abs() < 1e-11, "{:?}", values);
            assert_decomposes(badly, 1e-14);
        }
    }
}
