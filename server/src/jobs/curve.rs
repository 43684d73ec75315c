//! Hilbert's curve: numbers for the cells of a grid so that neighbours on the curve are neighbours in
//! the grid. (J. Skilling, "Programming the Hilbert curve", 2004.)

/// Where a cell lies on the curve. `cell` holds its coordinates, each below `2^bits`; there may be
/// `cell.len() * bits <= 64` bits together. Overwrites `cell`.
pub(super) fn position(cell: &mut [u32], bits: u32) -> u64 {
    if cell.is_empty() || bits == 0 {
        return 0;
    }
    transpose(cell, bits);
    let mut at = 0u64;
    for bit in (0..bits).rev() {
        for axis in cell.iter() {
            at = (at << 1) | u64::from((axis >> bit) & 1);
        }
    }
    at
}

fn transpose(cell: &mut [u32], bits: u32) {
    let top = 1u32 << (bits - 1);
    let mut bit = top;
    while bit > 1 {
        let below = bit - 1;
        for axis in 0..cell.len() {
            if cell[axis] & bit != 0 {
                cell[0] ^= below;
            } else {
                let swapped = (cell[0] ^ cell[axis]) & below;
                cell[0] ^= swapped;
                cell[axis] ^= swapped;
            }
        }
        bit >>= 1;
    }
    for axis in 1..cell.len() {
        cell[axis] ^= cell[axis - 1];
    }
    let last = cell[cell.len() - 1];
    let mut flips = 0;
    bit = top;
    while bit > 1 {
        if last & bit != 0 {
            flips ^= bit - 1;
        }
        bit >>= 1;
    }
    for axis in cell {
        *axis ^= flips;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cell of a grid by its place on the curve.
    fn walk(axes: usize, bits: u32) -> Vec<Vec<u32>> {
        let side = 1u32 << bits;
        let cells = (side as usize).pow(u32::try_from(axes).unwrap());
        let mut places: Vec<Option<Vec<u32>>> = vec![None; cells];
        for n in 0..cells {
            let mut rest = u32::try_from(n).unwrap();
            let cell: Vec<u32> = (0..axes)
                .map(|_| {
                    let at = rest % side;
                    rest /= side;
                    at
                })
                .collect();
            let at = usize::try_from(position(&mut cell.clone(), bits)).unwrap();
            assert!(places[at].is_none(), "two cells at {at}");
            places[at] = Some(cell);
        }
        places.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn the_curve_visits_every_cell_once_and_never_jumps() {
        for (axes, bits) in [(1, 5), (2, 1), (2, 4), (3, 3), (4, 2), (5, 2)] {
            for pair in walk(axes, bits).windows(2) {
                let steps: u32 = pair[0]
                    .iter()
                    .zip(&pair[1])
                    .map(|(a, b)| a.abs_diff(*b))
                    .sum();
                assert_eq!(steps, 1, "{axes} axes of {bits} bits: {pair:?}");
            }
        }
    }

    #[test]
    fn all_bits_may_be_used() {
        let mut seen = std::collections::HashSet::new();
        for corner in 0..256u32 {
            let mut cell: Vec<u32> = (0..8).map(|i| (corner >> i & 1) * 255).collect();
            assert!(seen.insert(position(&mut cell, 8)));
        }
    }
}
