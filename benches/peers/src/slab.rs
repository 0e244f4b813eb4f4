//! Stacks cut from one mapping, for peers that can run on stacks of somebody else's.

use std::ptr;
use std::rc::Rc;

/// All stacks here have this size.
pub const STACK_BYTES: usize = 64 * 1024;

/// The distance between the tops of two stacks: as if there was a guard page, as between those that
/// the peers map.
const STRIDE_BYTES: usize = STACK_BYTES + 4096;

pub const CACHE_LINE_BYTES: usize = 64;

/// A mapping with room for some stacks.
struct Slab {
    base: *mut u8,
    bytes: usize,
}

impl Slab {
    fn new(bytes: usize) -> Result<Self, String> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, and advice on it.
        let base = unsafe {
            let base = libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(format!("no mapping: {}", std::io::Error::last_os_error()));
            }
            libc::madvise(base, bytes, libc::MADV_NOHUGEPAGE);
            base.cast()
        };
        Ok(Self { base, bytes })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: nobody has a slot of it any more.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// One stack of a slab.
pub struct Slot {
    bottom: *mut u8,
    top: *mut u8,
    _slab: Rc<Slab>,
}

impl Slot {
    /// So many stacks; their tops are page-aligned, or at `colours` different cache lines.
    pub fn many(count: usize, colours: usize) -> Result<Vec<Self>, String> {
        let slab = Rc::new(Slab::new(count * STRIDE_BYTES)?);
        let slot = |index: usize| {
            let bottom = slab.base.wrapping_add(index * STRIDE_BYTES + 4096);
            let top = bottom.wrapping_add(STACK_BYTES - index % colours * CACHE_LINE_BYTES);
            Self { bottom, top, _slab: Rc::clone(&slab) }
        };
        Ok((0..count).map(slot).collect())
    }

    pub fn bottom(&self) -> *mut u8 {
        self.bottom
    }

    pub fn top(&self) -> *mut u8 {
        self.top
    }
}
