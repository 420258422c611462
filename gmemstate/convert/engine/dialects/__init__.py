"""The dialects: each a function that reads like the numbered steps of its source."""

from gmemstate.convert.engine.dialects import check_first, inplace, mainline, notify, rfc_v2
from gmemstate.convert.engine.steps import Dialect as Convert
from gmemstate.model.events import Dialect, Through

CONVERT: dict[Dialect, tuple[Convert, Through]] = {
    Dialect.MAINLINE: (mainline.set_memory_attributes, Through.VM_IOCTL),
    Dialect.RFC_V2: (rfc_v2.convert, Through.GMEM_CONVERT),
    Dialect.INPLACE: (inplace.set_memory_attributes2, Through.GMEM_IOCTL),
    Dialect.CHECK_FIRST: (check_first.convert, Through.GMEM_CONVERT),
    Dialect.NOTIFY: (notify.convert, Through.GMEM_CONVERT),
}
"""What each dialect does, and through which ioctl."""

SOURCES = {
    Dialect.MAINLINE: "Linux 7.2.13, virt/kvm/kvm_main.c",
    Dialect.RFC_V2: "RFC v2 of 2025-05-14 (cover.1747264138.git.ackerleytng@google.com), patches 04 and 38",
    Dialect.INPLACE: "v13 of 2026-09-10, as applied to kvm-x86 coco",
    Dialect.CHECK_FIRST: "the proposal of 2025-06-05 (aEEEJbTzlncbRaRA@yzhao56-desk.sh.intel.com) and its POC of 2025-06-16",
    Dialect.NOTIFY: "the goal of 2025-05-11: pfns without struct page, users that are notified and answer (mail of 2025-06-04)",
}
"""The kernel version or posting that each dialect follows."""
