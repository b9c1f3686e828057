"""The API against its own description, with what schemathesis thinks of. Last, since it also asks for actions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def test_the_api_is_as_it_describes_itself(lab):
    program = Path(sys.executable).with_name("schemathesis")
    examples = "200" if os.environ.get("MESH_TEST_LONG") else "15"
    command = [
        program, "run", f"{lab.url}/api/v1/openapi.json", "--url", lab.url,
        # A stream without an end is no answer that can be compared; a test message takes its time.
        "--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/logs/tail", "--exclude-path", "/api/v1/flow",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--max-examples", examples, "--seed", "1", "--no-color",
    ]  # fmt: skip
    assert shutil.which(program)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    lab.well()
