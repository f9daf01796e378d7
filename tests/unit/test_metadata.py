"""What the metadata.yaml files say is emitted, and what the code emits, are the same; docs/telemetry.md says it too."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.telemetry_page import PAGE, metadata, renewed
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import AttributeValue, Fragment, SpanBatch, SpanKind
from wirespan.receiver.clock import Clock
from wirespan.receiver.exchanges import Abi, ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.kernel.btf import shortened
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import COUNTERS, REQUEST_HEAD_SHORT, object_path
from wirespan.receiver.process import ProcessTable
from wirespan.service.emitted import EMITTERS, documented_metrics
