//! Numbers as they are stored: their type, and their conversion while they are copied out.

/// Whether a number is signed, unsigned or floating-point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberKind {
    /// Unsigned integers.
    Unsigned,
    /// Integers in two's complement.
    Signed,
    /// IEEE 754 floating-point numbers.
    Float,
}

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberType {
    /// Integer or floating-point.
    pub kind: NumberKind,
    /// Bytes of one number: 1, 2, 4 or 8.
    pub size: usize,
    /// Whether the highest byte comes first.
    pub is_big_endian: bool,
}

impl NumberType {
    /// The same type in little endian.
    pub(crate) fn little_endian(self) -> Self {
        Self { is_big_endian: false, ..self }
    }
}

/// Numbers as they are in a file.
#[derive(Clone, Copy, Debug)]
pub struct StoredNumbers<'a> {
    /// Their type.
    pub number_type: NumberType,
    /// Their bytes.
    pub bytes: &'a [u8],
    /// Whether the bytes are shuffled: all first bytes of the numbers come before all second ones, and so on.
    pub is_shuffled: bool,
}

impl StoredNumbers<'_> {
    /// Fills `out` with the numbers of two bytes from number `first` on.
    ///
    /// # Panics
    /// When there are fewer numbers.
    pub fn copy_u16(&self, first: usize, out: &mut [u16]) {
        let is_big_endian = self.number_type.is_big_endian;
        if self.is_shuffled {
            let (front, back) = self.bytes.split_at(self.bytes.len() / 2);
            let (low, high) = if is_big_endian { (back, front) } else { (front, back) };
            for ((number, &low), &high) in out.iter_mut().zip(&low[first..]).zip(&high[first..]) {
                *number = u16::from_le_bytes([low, high]);
            }
            return;
        }
        let pairs = self.bytes[2 * first..].as_chunks().0;
        if is_big_endian {
            out.iter_mut().zip(pairs).for_each(|(number, &pair)| *number = u16::from_be_bytes(pair));
        } else {
            out.iter_mut().zip(pairs).for_each(|(number, &pair)| *number = u16::from_le_bytes(pair));
        }
    }

    /// Fills `out` with the numbers of `N` bytes from number `first` on; `decode` takes the bytes of one in little endian.
    ///
    /// # Panics
    /// When there are fewer numbers.
    pub fn decode<T, const N: usize>(&self, first: usize, out: &mut [T], mut decode: impl FnMut([u8; N]) -> T) {
        // From one byte of a number to the next, and from one number to the next.
        let (stride, step) = if self.is_shuffled { (self.bytes.len() / N, 1) } else { (1, N) };
        for (index, number) in out.iter_mut().enumerate() {
            let start = (first + index) * step;
            let mut raw: [u8; N] = std::array::from_fn(|byte| self.bytes[start + byte * stride]);
            if self.number_type.is_big_endian {
                raw.reverse();
            }
            *number = decode(raw);
        }
    }
}

/// Conversion of stored numbers, applied while they are copied out of a file.
pub trait Convert: Sync {
    /// What the numbers become.
    type Output: Copy + Default + Send;

    /// Fills `out` with the numbers from number `first` on, of which there are enough. Returns the largest stored number,
    /// before any conversion; negative infinity when there is none.
    fn convert(&self, stored: StoredNumbers<'_>, first: usize, out: &mut [Self::Output]) -> f64;
}
