"""Libraries that report their use: told not to before any of them can be imported.

Importing this file sets the switches; `utils` does, and so does every script. Programs that a
library starts inherit them. Gone through in November 2026, with `strace` (tests/test_privacy.py)
and by reading: of what the requirements files bring, those in `SWITCHES` report, and no other.
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
    # the common wish, https://consoledonottrack.com: for what a later version may bring
    "DO_NOT_TRACK": "1"}
os.environ.update(SWITCHES)
