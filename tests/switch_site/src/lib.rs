//! Functions that switch with more values to keep than there are registers of a kind.
#![forbid(unsafe_code)]

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use stolon::greenlet::Greenlet;

/// Keeps words, which are read before the switch and written after it.
pub fn words(greenlet: &Greenlet<usize>, cells: &[AtomicU64; 32]) -> usize {
    let values: [u64; 32] = array::from_fn(|n| cells[n].load(SeqCst));
    let received = greenlet.switch(7).unwrap();
    for (cell, value) in cells.iter().zip(values) {
        cell.store(value + 1, SeqCst);
    }
    received
}

/// Keeps floating-point values, which are used before the switch, too.
pub fn floats(greenlet: &Greenlet<usize>, cells: &[AtomicU64; 12]) -> usize {
    let values: [f64; 12] = array::from_fn(|n| {
        let value = f64::from_bits(cells[n].load(SeqCst)) * 1.5;
        cells[n].store(value.to_bits(), SeqCst);
        value
    });
    let received = greenlet.switch(7).unwrap();
    for (cell, value) in cells.iter().zip(values) {
        cell.store((value + 2.5).to_bits(), SeqCst);
    }
    received
}

/// Keeps vectors, and which of their lanes are positive.
pub fn vectors(greenlet: &Greenlet<usize>, vectors: &mut [[f32; 16]; 40]) -> usize {
    let values = vectors.map(|vector| vector.map(|lane| lane * 1.5));
    let are_positive = values.map(|vector| vector.map(|lane| lane > 0.0));
    let received = greenlet.switch(7).unwrap();
    for (index, vector) in vectors.iter_mut().enumerate() {
        *vector = array::from_fn(|lane| {
            let value = values[index][lane];
            if are_positive[index][lane] { value + 2.5 } else { value }
        });
    }
    received
}
