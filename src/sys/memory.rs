//! Pages: how large they are, how they are made inaccessible, whether an address can be read.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `MADV_GUARD_INSTALL` (Linux 6.13): accesses fault, and no mapping is split. Not in every `libc`
/// yet.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// The size of a page, in bytes.
pub(crate) fn page_bytes() -> usize {
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    match PAGE_BYTES.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: sysconf only reads its argument; the page size is always known.
            let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            PAGE_BYTES.store(bytes, Ordering::Relaxed);
            bytes
        }
        bytes => bytes,
    }
}

/// Makes a page-aligned range fault on access by guard markers, which cost no mapping of their own.
///
/// # Errors
///
/// The kernel's, `EINVAL` where it knows no guard markers or the range is locked.
///
/// # Safety
///
/// The range belongs to a private anonymous mapping of the caller's, and nobody uses what is in it.
pub(crate) unsafe fn install_guard_markers(bottom: *mut u8, bytes: usize) -> io::Result<()> {
    // SAFETY: the range is the caller's and unused.
    syscall!(madvise(bottom.cast(), bytes, MADV_GUARD_INSTALL))?;
    Ok(())
}

/// Makes a page-aligned range fault on access by taking its permissions away, which splits the
/// mapping.
///
/// # Errors
///
/// The kernel's, `ENOMEM` when the process has as many mappings as it may (`vm.max_map_count`).
///
/// # Safety
///
/// As for [`install_guard_markers`].
pub(crate) unsafe fn protect(bottom: *mut u8, bytes: usize) -> io::Result<()> {
    // SAFETY: the range is the caller's and unused.
    syscall!(mprotect(bottom.cast(), bytes, libc::PROT_NONE))?;
    Ok(())
}

/// Gives the pages of a range back to the kernel; they read as zero afterwards.
///
/// # Errors
///
/// The kernel's, `EINVAL` if the range is locked.
///
/// # Safety
///
/// As for [`install_guard_markers`].
pub(crate) unsafe fn give_back(bottom: *mut u8, bytes: usize) -> io::Result<()> {
    // SAFETY: the range is the caller's and unused.
    syscall!(madvise(bottom.cast(), bytes, libc::MADV_DONTNEED))?;
    Ok(())
}

/// The lowest address in a page-aligned, mapped range whose page is in memory, if there is one.
///
/// # Errors
///
/// The kernel's, `ENOMEM` where nothing is mapped.
pub(crate) fn lowest_resident(bottom: usize, bytes: usize) -> io::Result<Option<usize>> {
    const PAGES_PER_CALL: usize = 256;
    let page_bytes = page_bytes();
    let top = bottom + bytes;
    for start in (bottom..top).step_by(PAGES_PER_CALL * page_bytes) {
        let mut pages = [0; PAGES_PER_CALL];
        let bytes = (top - start).min(PAGES_PER_CALL * page_bytes);
        // SAFETY: the memory itself is neither read nor written, and `pages` has an element for
        // each page of the range.
        syscall!(mincore(std::ptr::without_provenance_mut(start), bytes, pages.as_mut_ptr()))?;
        // The other bits mean nothing.
        if let Some(at) = pages.iter().position(|page| page & 1 != 0) {
            return Ok(Some(start + at * page_bytes));
        }
    }
    Ok(None)
}

/// Whether the kernel can read memory at `address`, found out without touching it here.
pub(crate) fn is_readable(address: *const u8) -> bool {
    // The kernel reads the new signal set before it looks at `how`, which is not valid: so the
    // answer is EFAULT for memory it cannot read and EINVAL for memory it can, and nothing is
    // changed either way.
    const NO_SUCH_HOW: libc::c_int = -1;
    const KERNEL_SIGSET_BYTES: usize = 8;
    // SAFETY: no signal mask is written, as `how` is refused; the old-set pointer is null.
    let result = syscall!(syscall(
        libc::SYS_rt_sigprocmask,
        NO_SUCH_HOW,
        address,
        std::ptr::null_mut::<libc::sigset_t>(),
        KERNEL_SIGSET_BYTES
    ));
    !matches!(result, Err(e) if e.raw_os_error() == Some(libc::EFAULT))
}

/// The lowest address of the calling thread's own stack, and the one after its highest.
///
/// # Errors
///
/// When the C library cannot find out.
pub(crate) fn thread_stack() -> io::Result<(usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    let (mut bottom, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are written by the first call if it succeeds, read by the second, and
    // destroyed once.
    let error = unsafe {
        match libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) {
            0 => {
                let mut attributes = attributes.assume_init();
                let error =
                    libc::pthread_attr_getstack(&raw const attributes, &mut bottom, &mut bytes);
                libc::pthread_attr_destroy(&raw mut attributes);
                error
            }
            error => error,
        }
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok((bottom.addr(), bottom.addr() + bytes))
}
