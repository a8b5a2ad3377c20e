//! Eigenvalues of small symmetric matrices, rounded as LAPACK rounds them.
//!
//! One Householder reflection, then implicit QL iterations (Golub & Van Loan, "Matrix Computations", 8.3), with the
//! operations in the order of LAPACK's `dsyevd` for matrices of this size and none of them fused. `OpenBLAS` rounds so on
//! every x86-64 processor up to AVX2; its kernels for AVX-512 fuse some operations of the reflection.

/// An eigenvalue counts as found when its off-diagonal neighbour is below this, relative to the diagonal.
const UNIT_ROUNDOFF: f64 = f64::EPSILON / 2.0;

/// Eigenvalues in ascending order, and the eigenvectors as columns in the same order, of a symmetric 2 × 2 or 3 × 3 matrix.
///
/// Only the lower triangle is read. Entries must be finite.
pub(crate) fn symmetric_eigen<const N: usize>(matrix: [[f64; N]; N]) -> ([f64; N], [[f64; N]; N]) {
    let (mut tridiagonal, reflector) = Tridiagonal::new(&matrix);
    tridiagonal.diagonalise();
    tridiagonal.sort();
    let Tridiagonal { d, mut vectors, .. } = tridiagonal;
    if let Some(reflector) = reflector {
        reflector.apply(&mut vectors);
    }
    (d, vectors)
}

/// The Householder reflection I − τ·v·vᵀ of the last two axes, with v = (1, `v`).
struct Reflector {
    tau: f64,
    v: f64,
}

impl Reflector {
    fn apply<const N: usize>(&self, vectors: &mut [[f64; N]; N]) {
        let [_, y, z] = vectors.as_mut_slice() else { return };
        for (y, z) in y.iter_mut().zip(z) {
            let projected = self.tau * (*y + self.v * *z);
            *y -= projected;
            *z -= projected * self.v;
        }
    }
}

/// A symmetric matrix whose other entries are zero, while it is made diagonal.
struct Tridiagonal<const N: usize> {
    /// The diagonal.
    d: [f64; N],
    /// The entries beside the diagonal: `e[i]` is at (i, i + 1). The last one is not used.
    e: [f64; N],
    /// The rotations so far.
    vectors: [[f64; N]; N],
}

impl<const N: usize> Tridiagonal<N> {
    fn new(matrix: &[[f64; N]; N]) -> (Self, Option<Reflector>) {
        let vectors = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
        let mut d = std::array::from_fn(|i| matrix[i][i]);
        let mut e = std::array::from_fn(|i| if i + 1 < N { matrix[i + 1][i] } else { 0.0 });
        let mut reflector = None;
        if let ([_, row_y, row_z], [_, d1, d2], [e0, e1, _]) = (matrix.as_slice(), d.as_mut_slice(), e.as_mut_slice())
            && row_z[0] != 0.0
        {
            let (alpha, x) = (row_y[0], row_z[0]);
            let beta = -hypotenuse(alpha, x).copysign(alpha);
            let tau = (beta - alpha) / beta;
            let v = x * (1.0 / (alpha - beta));
            // w = τ·A·v, made such that A − v·wᵀ − w·vᵀ is the reflected matrix.
            let mut w0 = tau * *d1 + tau * (*e1 * v);
            let mut w1 = tau * *e1 + (tau * v) * *d2;
            let half = -0.5 * tau * (w0 + w1 * v);
            w0 += half;
            w1 += half * v;
            *d1 = *d1 - w0 - w0;
            *e1 = (*e1 - w1) - v * w0;
            *d2 = (*d2 - v * w1) - v * w1;
            *e0 = beta;
            reflector = Some(Reflector { tau, v });
        }
        (Self { d, e, vectors }, reflector)
    }

    /// Rotates every entry beside the diagonal to zero, one unreduced block after the other.
    fn diagonalise(&mut self) {
        let mut first = 0;
        while first < N {
            let is_negligible = |&i: &usize| {
                let (root, next) = (self.d[i].abs().sqrt(), self.d[i + 1].abs().sqrt());
                self.e[i].abs() <= root * next * UNIT_ROUNDOFF
            };
            let last = (first..N - 1).find(is_negligible).unwrap_or(N - 1);
            self.e[last] = 0.0;
            // From the end with the smaller entry: eigenvalues there are found first, and lose least.
            let is_backwards = self.d[last].abs() < self.d[first].abs();
            self.reduce(if is_backwards { Walk { from: last, to: first } } else { Walk { from: first, to: last } });
            first = last + 1;
        }
    }

    /// Finds the eigenvalues of one block, in the order of the walk.
    fn reduce(&mut self, walk: Walk) {
        let mut near = 0;
        // Convergence is cubic; the bound only guards against entries that overflow.
        for _ in 0..30 * N {
            if near > walk.steps() {
                return;
            }
            let far = (near..walk.steps()).find(|&k| self.split(walk, k)).unwrap_or(walk.steps());
            match far - near {
                0 => near += 1,
                1 => {
                    self.solve_pair(walk.between(near));
                    near += 2;
                }
                _ => self.sweep(walk, near, far),
            }
        }
    }

    /// Sets the entry between two steps of the walk to zero when it no longer matters.
    fn split(&mut self, walk: Walk, k: usize) -> bool {
        let (size, next) = (self.d[walk.index(k)].abs(), self.d[walk.index(k + 1)].abs());
        let e = &mut self.e[walk.between(k)];
        let is_negligible = *e * *e <= UNIT_ROUNDOFF * UNIT_ROUNDOFF * size * next + f64::MIN_POSITIVE;
        if is_negligible {
            *e = 0.0;
        }
        is_negligible
    }

    /// One implicit QL iteration with Wilkinson's shift over the steps `near..=far` of the walk.
    fn sweep(&mut self, walk: Walk, near: usize, far: usize) {
        let (d, e) = (&mut self.d, &mut self.e);
        let first = walk.between(near);
        let start = d[walk.index(near)];
        let ratio = (d[walk.index(near + 1)] - start) / (2.0 * e[first]);
        let mut g = d[walk.index(far)] - start + e[first] / (ratio + hypotenuse(ratio, 1.0).copysign(ratio));
        let (mut sine, mut cosine, mut carried) = (1.0, 1.0, 0.0);
        for k in (near..far).rev() {
            let (i, next) = (walk.index(k), walk.index(k + 1));
            let f = sine * e[walk.between(k)];
            let b = cosine * e[walk.between(k)];
            let length;
            (cosine, sine, length) = plane_rotation(g, f);
            if k + 1 < far {
                e[walk.between(k + 1)] = length;
            }
            g = d[next] - carried;
            let r = (d[i] - g) * sine + 2.0 * cosine * b;
            carried = sine * r;
            d[next] = g + carried;
            g = cosine * r - b;
            for row in &mut self.vectors {
                (row[i], row[next]) = (cosine * row[i] - sine * row[next], cosine * row[next] + sine * row[i]);
            }
        }
        d[walk.index(near)] -= carried;
        e[first] = g;
    }

    /// The eigenvalues of the 2 × 2 block whose first entry is at (i, i); the larger comes first.
    fn solve_pair(&mut self, i: usize) {
        let (a, b, c) = (self.d[i], self.e[i], self.d[i + 1]);
        let (sum, difference, twice) = (a + c, a - c, b + b);
        let root =
            if difference.abs() == twice.abs() { twice.abs() * 2.0_f64.sqrt() } else { hypotenuse(difference, twice) };
        let (larger, smaller) = if a.abs() > c.abs() { (a, c) } else { (c, a) };
        let first = 0.5 * (sum + root.copysign(if sum < 0.0 { -1.0 } else { 1.0 }));
        let second = if sum == 0.0 { -0.5 * root } else { (larger / first) * smaller - (b / first) * b };
        let (cosine, sine) = pair_vector(difference, twice, root, sum < 0.0);
        (self.d[i], self.d[i + 1], self.e[i]) = (first, second, 0.0);
        for row in &mut self.vectors {
            (row[i], row[i + 1]) = (sine * row[i + 1] + cosine * row[i], cosine * row[i + 1] - sine * row[i]);
        }
    }

    /// Brings the eigenvalues into ascending order, by exchanging each with the lowest behind it.
    fn sort(&mut self) {
        for i in 0..N {
            let lowest = (i + 1..N).fold(i, |lowest, j| if self.d[j] < self.d[lowest] { j } else { lowest });
            self.d.swap(i, lowest);
            self.vectors.iter_mut().for_each(|row| row.swap(i, lowest));
        }
    }
}

/// The indices of a block, from one end to the other.
#[derive(Clone, Copy)]
struct Walk {
    from: usize,
    to: usize,
}

impl Walk {
    fn steps(self) -> usize {
        self.from.abs_diff(self.to)
    }

    /// The index after `k` steps.
    fn index(self, k: usize) -> usize {
        if self.from < self.to { self.from + k } else { self.from - k }
    }

    /// Where the entry between steps `k` and `k + 1` is in `e`.
    fn between(self, k: usize) -> usize {
        self.index(k).min(self.index(k + 1))
    }
}

/// √(x² + y²) without overflow.
fn hypotenuse(x: f64, y: f64) -> f64 {
    let (longer, shorter) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
    if shorter == 0.0 { longer } else { longer * (1.0 + (shorter / longer) * (shorter / longer)).sqrt() }
}

/// The cosine and sine of the rotation that turns (f, g) into (r, 0), and r.
fn plane_rotation(f: f64, g: f64) -> (f64, f64, f64) {
    if g == 0.0 {
        return (1.0, 0.0, f);
    }
    if f == 0.0 {
        return (0.0, 1.0_f64.copysign(g), g.abs());
    }
    let length = (f * f + g * g).sqrt();
    let r = length.copysign(f);
    (f.abs() / length, g / r, r)
}

/// Cosine and sine of the eigenvector that belongs to the eigenvalue of larger size of a 2 × 2 matrix, from the
/// difference of its diagonal, twice its other entry, and the root of the sum of their squares.
fn pair_vector(difference: f64, twice: f64, root: f64, is_negative: bool) -> (f64, f64) {
    let is_ascending = difference < 0.0;
    let cs = if is_ascending { difference - root } else { difference + root };
    let (cosine, sine) = if cs.abs() > twice.abs() {
        let cotangent = -twice / cs;
        let sine = 1.0 / (1.0 + cotangent * cotangent).sqrt();
        (cotangent * sine, sine)
    } else if twice == 0.0 {
        (1.0, 0.0)
    } else {
        let tangent = -cs / twice;
        let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
        (cosine, tangent * cosine)
    };
    if is_negative == is_ascending { (-sine, cosine) } else { (cosine, sine) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_decomposes<const N: usize>(matrix: [[f64; N]; N], tolerance: f64) {
        let (values, v) = symmetric_eigen(matrix);
        assert!(values.is_sorted(), "{values:?}");
        for i in 0..N {
            for j in 0..N {
                let rebuilt: f64 = (0..N).map(|k| v[i][k] * values[k] * v[j][k]).sum();
                assert!((rebuilt - matrix[i][j]).abs() <= tolerance, "{rebuilt} is not {}", matrix[i][j]);
                let dot: f64 = (0..N).map(|k| v[k][i] * v[k][j]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-13);
            }
        }
    }

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

    /// `numpy.linalg.eigh` (NumPy 2.4.6, `OpenBLAS` 0.3.31, its Haswell and Nehalem kernels alike) on the covariances that
    /// the original finds for flat regions of three to eleven voxels, and on a line of pixels.
    #[test]
    #[expect(clippy::unreadable_literal, reason = "digits as NumPy prints them")]
    fn eigenvalues_are_those_of_lapack_to_the_last_bit() {
        fn assert_bits<const N: usize>(matrix: [[f64; N]; N], expected: [f64; N]) {
            let (values, _) = symmetric_eigen(matrix);
            assert_eq!(values.map(f64::to_bits), expected.map(f64::to_bits), "{values:?} are not {expected:?}");
        }
        assert_bits(
            [
                [2.0, 0.5, -0.6666666666666666],
                [0.5, 0.125, -0.16666666666666666],
                [-0.6666666666666666, -0.16666666666666666, 0.2962962962962963],
            ],
            [-4.11783461543314e-17, 0.06685553967092384, 2.3544407566253724],
        );
        assert_bits(
            [
                [4.231404958677686, 0.0, -0.1511216056670601],
                [0.0, 0.0, 0.0],
                [-0.1511216056670601, 0.0, 1.1927812447292965],
            ],
            [0.0, 1.185283926186863, 4.238902277220119],
        );
        assert_bits(
            [
                [2.1599999999999997, 0.5399999999999999, 0.675],
                [0.5399999999999999, 0.13499999999999998, 0.16875],
                [0.675, 0.16875, 0.40625],
            ],
            [-1.2529274132658047e-17, 0.17761788018997937, 2.52363211981002],
        );
        assert_bits(
            [[2.25, -0.5625, -0.5625], [-0.5625, 0.140625, 0.140625], [-0.5625, 0.140625, 0.140625]],
            [-2.7832631651630874e-17, 1.110993584985176e-16, 2.53125],
        );
        assert_bits(
            [[2.0, -1.0, -1.0], [-1.0, 0.5, 0.5], [-1.0, 0.5, 0.6666666666666666]],
            [-2.8658432725206854e-16, 0.1375540355918773, 3.0291126310747885],
        );
        assert_bits(
            [
                [6.172839506172839, 0.0, -0.31828703703703703],
                [0.0, 0.0, 0.0],
                [-0.31828703703703703, 0.0, 0.7378472222222222],
            ],
            [-6.834124931863927e-32, 0.7192710114267742, 6.1914157169682875],
        );
        assert_bits(
            [[0.005475999999999999, 0.016427999999999998], [0.016427999999999998, 0.049284]],
            [8.673617379884035e-19, 0.05476],
        );
    }

    #[test]
    fn entries_that_overflow_end() {
        let (values, _) = symmetric_eigen([[1e308, 1e308, 0.0], [1e308, -1e308, 1e308], [0.0, 1e308, 1e308]]);
        assert_eq!(values.len(), 3);
    }

    proptest! {
        #[test]
        fn vectors_are_orthonormal_and_rebuild_the_matrix(entries in prop::array::uniform6(-1e3..1e3_f64)) {
            let [a, b, c, d, e, f] = entries;
            assert_decomposes([[a, b, c], [b, d, e], [c, e, f]], 1e-10);
            assert_decomposes([[a, b], [b, d]], 1e-10);
        }

        #[test]
        fn small_whole_numbers_have_many_ties(entries in prop::array::uniform6(-2..3_i8)) {
            let [a, b, c, d, e, f] = entries.map(f64::from);
            assert_decomposes([[a, b, c], [b, d, e], [c, e, f]], 1e-14 * 16.0);
            assert_decomposes([[a, b], [b, d]], 1e-14 * 16.0);
        }
    }
}
