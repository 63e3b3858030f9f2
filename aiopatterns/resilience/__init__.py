"""What may happen to one call: policies, and stacks of them."""

from __future__ import annotations
