//! A group of receive buffers that the kernel chooses from: a provided-buffer ring, io_uring_register_buf_ring(3).
//!
//! A buffer belongs to the kernel from [`BufferGroup::give`] until a completion names it, then to the caller until it
//! is given again. `0 ≤ free ≤ entries`; giving a buffer twice is a bug that the debug check of `free` catches.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Entries, ring and memory of one group.
pub(super) struct BufferGroup {
    group: u16,
    entries: u16,
    buffer_len: u32,
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    free: u16,
}

impl BufferGroup {
    /// Allocates and registers `entries` buffers (a power of two ≤ 32,768) of `buffer_len` bytes, all free.
    pub(super) fn register(io: &io_uring::IoUring, group: u16, entries: u16, buffer_len: u32) -> io::Result<Self> {
        assert!(entries.is_power_of_two() && entries <= 1 << 15, "the kernel's bounds");
        let mut this = Self {
            group,
            entries,
            buffer_len,
            ring: allocate(ring_layout(entries)).cast(),
            memory: allocate(memory_layout(entries, buffer_len)),
            tail: 0,
            free: 0,
        };
        // SAFETY: the ring has `entries` zeroed entries, page aligned; `unregister` comes before the memory is freed,
        // or else the memory is leaked.
        let result =
            unsafe { io.submitter().register_buf_ring_with_flags(this.ring.as_ptr() as u64, entries, group, 0) };
        if let Err(error) = result {
            this.free_memory();
            return Err(error);
        }
        for buffer in 0..entries {
            this.give(buffer);
        }
        Ok(this)
    }

    /// Takes the memory back from the kernel and frees it; it is leaked if the kernel will not let go.
    pub(super) fn unregister(&mut self, io: &io_uring::IoUring) {
        if io.submitter().unregister_buf_ring(self.group).is_ok() {
            self.free_memory();
        }
    }

    fn free_memory(&mut self) {
        // SAFETY: both were allocated with these layouts in `register`; the caller never uses the group again, and
        // the kernel does not know the memory (not registered, or unregistered).
        unsafe {
            dealloc(self.ring.as_ptr().cast(), ring_layout(self.entries));
            dealloc(self.memory.as_ptr(), memory_layout(self.entries, self.buffer_len));
        }
    }

    /// Gives a buffer, `< entries`, to the kernel.
    pub(super) fn give(&mut self, buffer: u16) {
        debug_assert!(buffer < self.entries && self.free < self.entries, "a buffer is given once");
        let index = self.tail & (self.entries - 1);
        // SAFETY: index < entries; the kernel reads entries below the tail only, and this one is at the tail.
        let entry = unsafe { self.ring.add(usize::from(index)).as_mut() };
        entry.set_addr(self.address(buffer).as_ptr() as u64);
        entry.set_len(self.buffer_len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
        // SAFETY: the pointer is to the tail field of the registered ring's first entry, aligned, alive as long as
        // `self`; kernel and we access it atomically only.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Notes that a completion named the buffer: it is the caller's now.
    pub(super) fn taken(&mut self) {
        debug_assert!(self.free > 0, "a taken buffer was free");
        self.free -= 1;
    }

    /// Buffers that the kernel may choose from.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// The first `len` bytes of a buffer that is the caller's.
    pub(super) fn bytes_mut(&mut self, buffer: u16, len: u32) -> &mut [u8] {
        assert!(buffer < self.entries && len <= self.buffer_len, "lease {buffer} of {len} B is not of this driver");
        // SAFETY: inside the allocation, initialised (zeroed, then written by the kernel); a leased buffer is not in
        // the ring, so the kernel does not write to it; `&mut self` excludes another slice.
        unsafe { std::slice::from_raw_parts_mut(self.address(buffer).as_ptr(), len as usize) }
    }

    fn address(&self, buffer: u16) -> NonNull<u8> {
        // SAFETY: buffer < entries, checked by the callers, so this stays inside the allocation.
        unsafe { self.memory.add(usize::from(buffer) * self.buffer_len as usize) }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layouts below are never of size 0.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

fn ring_layout(entries: u16) -> Layout {
    let bytes = usize::from(entries.max(1)) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, PAGE_BYTES).expect("at most 512 KiB")
}

fn memory_layout(entries: u16, buffer_len: u32) -> Layout {
    let bytes = usize::from(entries.max(1)) * buffer_len.max(1) as usize;
    Layout::from_size_align(bytes, PAGE_BYTES).expect("entries × length fits memory")
}

/// The kernel wants the ring page aligned; this is the largest page of any architecture it runs on.
const PAGE_BYTES: usize = 65_536;
