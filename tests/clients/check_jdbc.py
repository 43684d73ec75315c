#!/usr/bin/env python3
"""PostgreSQL's JDBC driver against a running weir. Needs a JDK, and the driver: in WEIR_JDBC_JAR, or where
Debian's libpostgresql-jdbc-java puts it. Without them it says so and is left out."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from common import Checks

checks = Checks(__doc__)
jar = os.environ.get("WEIR_JDBC_JAR", "/usr/share/java/postgresql.jar")
if not (shutil.which("javac") and shutil.which("java") and os.path.exists(jar)):
    print("skipped: no JDK, or no driver in WEIR_JDBC_JAR")
    sys.exit(0)
source = pathlib.Path(__file__).with_name("CheckJdbc.java")
with tempfile.TemporaryDirectory() as classes:
    subprocess.run(["javac", "-cp", jar, "-d", classes, source], check=True, timeout=120)
    url = f"jdbc:postgresql://{checks.pg_host}:{checks.pg_port}/weir"
    command = ["java", "-cp", f"{jar}:{classes}", "CheckJdbc", url, checks.user]
    sys.exit(subprocess.run(command, timeout=300, check=False).returncode)
