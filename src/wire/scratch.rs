//! Memory that is lent to whichever message needs it next.

use zstd::zstd_safe::{DCtx, ResetDirective};

/// Greatest context that is kept: one that opened small messages only. Larger ones have a window with them.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// What decoders of one thread lend each other, so that a small compressed message need not make a new context.
///
/// A zstd context is about 94 KiB; making one can cost a hundred times as much as opening a small message.
/// What is found does not depend on it, and it may be dropped at any time.
#[derive(Default)]
pub struct Scratch {
    zstd: Option<DCtx<'static>>,
}

impl Scratch {
    /// Heap bytes held, at most 256 KiB.
    pub fn held_bytes(&self) -> usize {
        self.zstd.as_ref().map_or(0, DCtx::sizeof)
    }

    /// A context as good as new, if one can be made.
    pub(super) fn take_zstd(&mut self) -> Option<DCtx<'static>> {
        self.zstd.take().or_else(DCtx::try_create)
    }

    /// Keeps `context` for the next message, unless it is too large.
    pub(super) fn put_zstd(&mut self, mut context: DCtx<'static>) {
        if context.sizeof() <= KEPT_BYTES_MAX && context.reset(ResetDirective::SessionOnly).is_ok()
        {
            self.zstd = Some(context);
        }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} bytes)", self.held_bytes())
    }
}
