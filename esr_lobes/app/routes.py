"""Clips, pictures, downloads and uploads: the routes below ``/esr/``.

Authors
 * The esr_lobes contributors
"""

import logging
import shutil
import tempfile
from pathlib import Path

from esr_lobes.app.answers import MAX_UPLOAD_BYTES, UploadError
from esr_lobes.app.clips import CONTEXT_SECONDS, read_around
from esr_lobes.app.drawings import spectrogram
from esr_lobes.app.exporting import KINDS, export
from esr_lobes.audio import SAMPLE_RATE, AudioError

logger = logging.getLogger(__name__)

HEADERS = {
    "Cache-Control": "private, max-age=3600",
    "X-Content-Type-Options": "nosniff",
}


def routes(answers):
    """Returns the routes below ``/esr/``.

    Arguments
    ---------
    answers : Answers
        What may be listened to.

    Returns
    -------
    list of starlette.routing.Route
        For clips, pictures, downloads and uploads.
    """
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import (
        FileResponse,
        JSONResponse,
        PlainTextResponse,
        Response,
    )
    from starlette.routing import Route

    def gone():
        return PlainTextResponse("no such answer", 404, HEADERS)

    def unreadable(error):
        logger.warning("%s", error)
        text = "the recording is gone or cannot be read"
        return PlainTextResponse(text, 410, {"Cache-Control": "no-store"})

    def clip(request):
        values = request.path_params
        around = request.query_params.get("context") == "1"
        try:
            path = answers.clip(values["token"], values["rank"], around)
        except AudioError as error:
            return unreadable(error)
        if path is None:
            return gone()
        return FileResponse(path, media_type="audio/wav", headers=HEADERS)

    def picture(request):
        values = request.path_params
        segment = answers.segment(values["token"], values["rank"])
        if segment is None:
            return gone()
        try:
            wav = read_around(segment, CONTEXT_SECONDS)
        except AudioError as error:
            return unreadable(error)
        png = spectrogram(wav, SAMPLE_RATE)
        return Response(png, media_type="image/png", headers=HEADERS)

    def download(request):
        kind = request.path_params["kind"]
        hits = answers.hits(request.path_params["token"])
        if not hits or kind not in KINDS:
            return gone()
        folder = Path(tempfile.mkdtemp(dir=answers.folder))
        made = export(hits, kind, folder)
        after = BackgroundTask(shutil.rmtree, folder)
        return FileResponse(made, filename=made.name, background=after)

    async def upload(request):
        data = bytearray()
        async for block in request.stream():
            data += block
            if len(data) > MAX_UPLOAD_BYTES:
                break
        try:
            token = await run_in_threadpool(answers.keep_upload, bytes(data))
        except UploadError as error:
            return JSONResponse({"problem": str(error)}, 400)
        return JSONResponse({"token": token})

    def uploaded(request):
        path = answers.upload(request.path_params["token"])
        if path is None:
            return gone()
        kind = "application/octet-stream"
        return FileResponse(path, media_type=kind, headers=HEADERS)

    return [
        Route("/esr/clips/{token}/{rank:int}", clip),
        Route("/esr/pictures/{token}/{rank:int}", picture),
        Route("/esr/exports/{token}/{kind}", download),
        Route("/esr/uploads", upload, methods=["POST"]),
        Route("/esr/uploads/{token}", uploaded),
    ]
