"""A folder from which an image can be built: the model, its runtime and a program that answers."""

from __future__ import annotations

from drupe.packaging.requirements import python_version

TEMPLATE = """\
# Written by drupe, which builds no images itself:
#   docker build -t {image} .
#   docker run --rm -i {image} "PROMPT"
# Without a prompt it answers each line of its standard input.
FROM python:{python}-slim

WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY model/ model/
COPY app.py ./
ENV ORT_DISABLE_TELEMETRY=1
{verify}USER nobody
ENTRYPOINT ["python", "app.py"]
"""
VERIFY = """\
# An image whose model does not answer as it did where it was made is not built.
RUN python model/verify.py
"""


def dockerfile(name: str, *, has_verify: bool) -> bytes:
    """Return the Dockerfile of a package called `name`."""
    image = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
    text = TEMPLATE.format(
        image=image or "model",
        python=python_version(),
        verify=VERIFY if has_verify else "",
    )
    return text.encode()
