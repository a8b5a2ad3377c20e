//! Eigenvalues of small symmetric matrices.

/// Eigenvalues in ascending order, and the eigenvectors as columns in the same order, of a symmetric matrix.
///
/// Cyclic Jacobi rotations (Golub & Van Loan, "Matrix Computations", 8.5): exact where the matrix is diagonal, small
/// eigenvalues are accurate relative to their own size, and every machine gives the same digits. Equal eigenvalues keep
/// the order of their axes. Entries must be finite.
pub(crate) fn symmetric_eigen<const N: usize>(matrix: [[f64; N]; N]) -> ([f64; N], [[f64; N]; N]) {
    let mut a = matrix;
    let mut v: [[f64; N]; N] = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    // Convergence is quadratic: five sweeps suffice for 3 × 3, the bound only guards against entries that overflow.
    for _ in 0..32 {
        let mut rotated = false;
        for p in 0..N {
            for q in p + 1..N {
                if a[p][q].abs() > f64::EPSILON * 1e-3 * (a[p][p] * a[q][q]).abs().sqrt() {
                    rotate(&mut a, &mut v, p, q);
                    rotated = true;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: [usize; N] = std::array::from_fn(|i| i);
    order.sort_by(|&i, &j| a[i][i].total_cmp(&a[j][j]));
    (order.map(|i| a[i][i]), std::array::from_fn(|row| order.map(|column| v[row][column])))
}

/// One Jacobi rotation, which makes `a[p][q]` zero.
fn rotate<const N: usize>(a: &mut [[f64; N]; N], v: &mut [[f64; N]; N], p: usize, q: usize) {
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = 1.0_f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    let step = t * a[p][q];
    a[p][p] -= step;
    a[q][q] += step;
    a[p][q] = 0.0;
    a[q][p] = 0.0;
    for k in 0..N {
        if k != p && k != q {
            let (kp, kq) = (a[k][p], a[k][q]);
            a[k][p] = c * kp - s * kq;
            a[p][k] = a[k][p];
            a[k][q] = s * kp + c * kq;
            a[q][k] = a[k][q];
        }
        let (vp, vq) = (v[k][p], v[k][q]);
        v[k][p] = c * vp - s * vq;
        v[k][q] = s * vp + c * vq;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_diagonal_matrix_is_only_sorted() {
        let (values, vectors) = symmetric_eigen([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]);
        assert_eq!(values, [0.0, 0.0, 2.0]);
        assert_eq!(vectors, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
    }

    #[test]
    fn a_flat_shape_has_an_eigenvalue_of_exactly_zero() {
        let (values, vectors) = symmetric_eigen([[0.0, 0.0, 0.0], [0.0, 3.0, 1.5], [0.0, 1.5, 2.0]]);
        assert_eq!(values[0], 0.0);
        assert_eq!([vectors[0][0], vectors[1][0], vectors[2][0]], [1.0, 0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn vectors_are_orthonormal_and_rebuild_the_matrix(entries in prop::array::uniform6(-1e3..1e3_f64)) {
            let [a, b, c, d, e, f] = entries;
            let matrix = [[a, b, c], [b, d, e], [c, e, f]];
            let (values, v) = symmetric_eigen(matrix);
            prop_assert!(values.is_sorted());
            for i in 0..3 {
                for j in 0..3 {
                    let rebuilt: f64 = (0..3).map(|k| v[i][k] * values[k] * v[j][k]).sum();
                    prop_assert!((rebuilt - matrix[i][j]).abs() < 1e-9, "{rebuilt} {}", matrix[i][j]);
                    let dot: f64 = (0..3).map(|k| v[k][i] * v[k][j]).sum();
                    prop_assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
            }
        }
    }
}
