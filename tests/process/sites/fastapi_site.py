"""A FastAPI site with a WebSocket, a stream, validation and a lifespan."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app):
    """Have something that exists in between only."""
    app.state.ready = True
    yield
    app.state.ready = False


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    """What is posted."""

    name: str
    price: float


@app.post("/items")
async def items(item: Item):
    """Give it back."""
    return {"got": item.name, "price": item.price, "ready": app.state.ready}


@app.get("/stream")
async def stream():
    """Send parts with pauses."""

    async def parts():
        for number in range(5):
            yield f"{number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(parts(), media_type="text/plain")


@app.websocket("/talk")
async def talk(socket: WebSocket):
    """Echo, in capitals."""
    await socket.accept()
    try:
        while True:
            await socket.send_text((await socket.receive_text()).upper())
    except WebSocketDisconnect:
        pass
