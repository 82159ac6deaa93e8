"""What importing OpenVINO does not do."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from tastemaker.models.clip_openvino import processor_capabilities
assert "FP32" in processor_capabilities()
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry  # whoever wants it has it
"""


def test_nothing_is_sent_or_noted_about_the_user(tmp_path):
    pytest.importorskip("openvino_telemetry")
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, timeout=60, check=True)
    assert not (tmp_path / "intel").exists()
