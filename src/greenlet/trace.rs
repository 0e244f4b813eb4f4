//! For the crate's own tests: who got control, in order.

use std::cell::RefCell;

use super::block::Block;

thread_local! {
    static NAMES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn note(to: &Block) {
    let name = if to.id.get() == 0 { "main" } else { to.name().unwrap_or("?") };
    // While the thread exits there is nobody to read it.
    let _ = NAMES.try_with(|names| names.borrow_mut().push(name.to_owned()));
}

/// The names of all that got control on this thread since this was last called.
pub(crate) fn take() -> Vec<String> {
    NAMES.take()
}
