//! The memory allocator of every program: the calls of a worker and the requests of a gateway come and go on all threads at
//! once, which the C library's own takes its time for.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
