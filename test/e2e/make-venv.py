"""Makes a virtual environment with these requirements, unless it is there: make-venv.py DIRECTORY REQUIREMENTS

Whoever else wants it at the same time waits. It gets its name only when it is whole.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import venv

directory, requirements = sys.argv[1:]
os.makedirs(os.path.dirname(directory), exist_ok=True)
with open(directory + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not os.path.isdir(directory):
        unfinished = directory + ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        venv.create(unfinished, with_pip=True)
        python = os.path.join(unfinished, "bin", "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary", ":all:", "-r", requirements], check=True)
        os.rename(unfinished, directory)
