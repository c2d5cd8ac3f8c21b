"""Switch off the telemetry of third-party libraries before any of them is imported.

Importing this file sets the switches; `utils` imports it, and every script imports `utils`. Child
processes inherit them. Of the packages in the requirements files, only those in `SWITCHES` have
telemetry: checked in November 2026 with `strace` (tests/test_privacy.py) and by reading.
"""
import os

SWITCHES = {
    # onnxruntime from 1.29: its import writes a device identifier and queues events for Microsoft
    # (Privacy.md in its wheel); its function disable_telemetry_events() comes too late
    "ORT_DISABLE_TELEMETRY": "1",
    # selenium: Selenium Manager reports each start of a browser to plausible.io
    "SE_AVOID_STATS": "true",
    # huggingface_hub, which timm brings: https://huggingface.co/docs/huggingface_hub
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # https://consoledonottrack.com, in case a later version of another library respects it
    "DO_NOT_TRACK": "1"}
os.environ.update(SWITCHES)
