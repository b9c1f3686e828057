"""The API against its own description, with what schemathesis thinks of. Last, since it also asks for actions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import until


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def known_ids(lab, folder):
    """Names of what there is, so that not every question is answered with 404."""
    def newest(path, field):
        return json.loads(lab.get(f"/api/v1/{path}"))[field][0]

    ids = {"/api/v1/brokers/{id}": "broker2", "/api/v1/clients/{id}": "page-0"}
    ids["/api/v1/brokers/{id}/drain"] = ids["/api/v1/brokers/{id}/enable"] = "broker5"
    ids["/api/v1/logs/{id}/context"] = newest("logs", "rows")["id"]
    if json.loads(lab.get("/api/v1/incidents"))["incidents"]:
        ids["/api/v1/incidents/{id}"] = newest("incidents", "incidents")["id"]
    config = folder / "schemathesis.toml"
    config.write_text("".join(f'[[operations]]\ninclude-path = "{path}"\nparameters = {{ id = "{name}" }}\n' for path, name in ids.items()))
    return config


@pytest.mark.parametrize("ids", ["any", "known"])
def test_the_api_is_as_it_describes_itself(lab, tmp_path, ids):
    program = Path(sys.executable).with_name("schemathesis")
    examples = "200" if os.environ.get("MESH_TEST_LONG") else "15"
    until("a client", lambda: json.loads(lab.get("/api/v1/clients/page-0"))["sessions"])
    config = ["--config-file", known_ids(lab, tmp_path)] if ids == "known" else []
    command = [
        program, *config, "run", f"{lab.url}/api/v1/openapi.json", "--url", lab.url,
        # A stream without an end is no answer that can be compared; a test message takes its time.
        "--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/flow",
        "--phases", "examples,coverage,fuzzing,stateful", "--checks", CHECKS, "--max-examples", examples, "--seed", "1", "--no-color",
    ]  # fmt: skip
    assert shutil.which(program)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    for phase in ["Coverage", "Fuzzing", "Stateful"]:
        assert f"✅ {phase}" in done.stdout, done.stdout[-3000:]
    for broker in lab.status()["snapshot"]["brokers"]:
        lab.post(f"/api/v1/brokers/{broker['id']}/enable")
    lab.well()
