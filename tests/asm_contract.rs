//! What the switch promises to the code around it: every register that a called function has to
//! preserve is intact after a switch, whatever the other greenlet did to it; and stacks are aligned
//! where the ABI says so.
#![allow(unsafe_code, reason = "planting values in registers takes assembly")]

mod util;

use std::hint::black_box;

use stolon::greenlet::{self, Greenlet};
use util::planted::{stolon_test_planted, switch_with_planted_registers};

#[test]
fn every_callee_saved_register_is_intact_after_a_switch() {
    let main = greenlet::current::<()>();
    let other = Greenlet::new(move |()| {
        for round in 0..100 {
            assert_eq!(switch_with_planted_registers(&main, usize::MAX / 3 + round), 0);
        }
    });
    for round in 0..100 {
        assert_eq!(switch_with_planted_registers(&other, 0x1000 * (round + 1)), 0);
    }
    other.switch(()).unwrap();
    assert!(other.is_dead());
}

#[test]
fn a_register_that_was_not_preserved_would_be_noticed() {
    extern "C" fn breaks_one(_: &Greenlet) {
        // SAFETY: none, on purpose: it breaks the one register that is written back below.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::asm!("inc r15", options(nomem, nostack));
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            std::arch::asm!("add x28, x28, #1", options(nomem, nostack));
        }
    }
    let any = greenlet::current::<()>();
    // SAFETY: the planted values are nobody's but the routine's own, which restores the caller's.
    let changed = unsafe { stolon_test_planted(breaks_one, &any, 1) };
    assert_eq!(changed, 1);
}

#[test]
fn a_greenlets_stack_is_aligned_as_the_abi_demands() {
    #[repr(align(64))]
    struct Aligned([u8; 64]);

    #[inline(never)]
    fn address_of_aligned() -> usize {
        let aligned = black_box(Aligned([1; 64]));
        (&raw const aligned.0).addr()
    }
    // More than there are colours of stacks, so that each is seen.
    let main = greenlet::current::<usize>();
    let greenlets: Vec<_> = (0..40)
        .map(|_| {
            let main = main.clone();
            Greenlet::new(move |_: usize| {
                let word = black_box(0u128);
                assert_eq!((&raw const word).addr() % align_of::<u128>(), 0);
                main.switch(address_of_aligned()).unwrap()
            })
        })
        .collect();
    for greenlet in &greenlets {
        assert_eq!(greenlet.switch(0).unwrap() % 64, 0);
    }
}

#[test]
fn floating_point_values_live_across_a_switch_stay_with_their_greenlet() {
    #[inline(never)]
    fn sum_of_eight(other: &Greenlet, seed: f64) -> f64 {
        let values: [f64; 8] = std::array::from_fn(|n| black_box(seed + n as f64));
        other.switch(()).expect("the other takes it");
        values.iter().sum()
    }
    let main = greenlet::current::<()>();
    let other = Greenlet::new(move |()| {
        for round in 0..50 {
            let seed = f64::from(round) * 100.0;
            assert_eq!(sum_of_eight(&main, seed), seed * 8.0 + 28.0);
        }
    });
    for round in 0..50 {
        let seed = f64::from(round) * -3.0;
        assert_eq!(sum_of_eight(&other, seed), seed * 8.0 + 28.0);
    }
}
