//! The memory allocator of every program. The calls of a worker and the requests of a gateway
//! allocate and free on all threads at once, for which the C library's allocator is slow.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
