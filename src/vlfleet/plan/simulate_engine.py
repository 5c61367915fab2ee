"""vLLM's scheduler (v1/core/sched/scheduler.py, 0.26), as far as it decides what a step computes.

Running requests come first, then the waiting ones in order, until the step is full. A picture is computed in the step
in which its first token is; when the budget or the cache of the encoder has no room, the prompt is computed up to it.
When no block of the KV cache is left, the request that came last starts again.
"""

from __future__ import annotations

from collections import deque

from vlfleet.plan.kv import BLOCK_SIZE
from vlfleet.plan.simulate_caches import EncoderCache, KvCache
from vlfleet.plan.simulate_requests import Request
from vlfleet.plan.simulate_step import Draft, Limits, Step
from vlfleet.plan.speed_step import Batch


class EngineState:
    """The queues and memories of one engine."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.encoder = EncoderCache(limits.encoder_tokens)
        self.kv = KvCache(limits.kv_cache_tokens // BLOCK_SIZE)
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Request] = {}
        """In the order of their admission."""
        self.preemptions = 0
        self.images = self.encoded = self.asked_tokens = self.found_tokens = 0
        """Of the requests admitted so far: pictures, those the vision tower saw, prompt tokens, those found in the KV
        cache."""
        self._prompts: dict[int, Request] = {}
        """Running, prompt not wholly scheduled."""
        self._number = 0
        self._decoding = 0
        self._context = 0
        self._blocks_until = 0
        """Decoding requests have their blocks for all steps before this one."""
        self._needs = [0] * BLOCK_SIZE
        """Decoding requests by the step (modulo a block) in which they need their next block."""
        self._last: dict[int, list[tuple[Request, int]]] = {}
        """By step: requests whose last token is scheduled in it."""

    def schedule(self) -> Step | None:
        """The next step, or None when there is nothing to compute now."""
        number = self._number
        preemptions = self.preemptions
        self._make_room_for_decodes()
        draft = Draft(self.limits.max_num_batched_tokens, self.limits.encoder_tokens)
        if self._prompts:
            self._go_on(draft)
        else:
            draft.budget -= self._decoding
        if self.preemptions == preemptions:
            self._admit(draft)
        decodes, context = self._decoding - draft.starved, self._context - draft.starved_context
        if not decodes and not draft.tokens:
            return None
        self._number += 1
        batch = Batch(draft.tokens, draft.pairs, decodes, context, len(draft.finished), tuple(draft.images))
        step = Step(number, batch, decodes + len(draft.finished), seen=draft.seen, admitted=draft.admitted)
        self._context += decodes
        self._decodes_end(step)
        for request in draft.finished:
            self._prompt_is_done(request, step)
        return step

    def finish(self, step: Step) -> list[Request]:
        """Books what ends with a step, once it has run; the requests that are answered."""
        for request, image in step.seen:
            self.encoder.release(request.images[image].number, request.images[image].picture.tokens, request.number)
        done = []
        for request, turn in step.ends:
            if request.turn == turn and self.running.pop(request.number, None) is not None:
                self._release(request)
                done.append(request)
        return done

    # Decoding

    def _make_room_for_decodes(self) -> None:
        """Blocks for the sequences that begin a new one."""
        place = self._number % BLOCK_SIZE
        while self._needs[place] and not self.kv.take(self._needs[place]):
            self._preempt()
        self._blocks_until = self._number + 1

    def _decodes_end(self, step: Step) -> None:
        for request, turn in self._last.pop(step.number, ()):
            if request.turn == turn and request.is_decoding:
                self._stop_decoding(request, step.number + 1)
                step.ends.append((request, turn))

    def _prompt_is_done(self, request: Request, step: Step) -> None:
        """Its next token is sampled in this step; the others follow, one a step."""
        self._prompts.pop(request.number, None)
        if not request.generated:
            step.firsts.append(request)
        request.generated += 1
        left = request.output_tokens - request.generated
        request.turn = step.number + 1 - request.generated
        if not left:
            step.ends.append((request, request.turn))
            return
        request.is_decoding = True
        self._decoding += 1
        self._context += request.prompt_tokens + request.generated
        self._needs[self._place(request)] += 1
        self._last.setdefault(step.number + left, []).append((request, request.turn))

    def _place(self, request: Request) -> int:
        """The step, modulo a block, in which it needs a block: when its length so far is a multiple of one."""
        return (request.turn + 1 - request.prompt_tokens) % BLOCK_SIZE

    def _wait_a_step(self, request: Request) -> int:
        """It decodes nothing in this step, so that all it does comes one step later; its tokens so far."""
        tokens = request.prompt_tokens + self._number - request.turn
        place = self._place(request)
        if place == self._number % BLOCK_SIZE:
            self.kv.held -= 1
        request.turn += 1
        self._needs[place] -= 1
        self._needs[self._place(request)] += 1
        last = request.turn + request.output_tokens - 1
        self._last.setdefault(last, []).append((request, request.turn))
        return tokens

    def _stop_decoding(self, request: Request, number: int) -> None:
        """Takes it from the sums; it has been in all steps before `number`."""
        first = request.turn + request.generated
        place = self._place(request)
        request.nameless += sum(step % BLOCK_SIZE == place for step in range(first, self._blocks_until))
        request.generated = number - request.turn
        request.is_decoding = False
        self._decoding -= 1
        self._context -= request.prompt_tokens + request.generated
        self._needs[place] -= 1

    # Prompts

    def _go_on(self, draft: Draft) -> None:
        """Running requests in their order: a prompt that takes the whole step leaves nothing to those after it."""
        for request in list(self.running.values()):
            if request.is_decoding:
                if draft.budget > 0:
                    draft.budget -= 1
                else:
                    draft.starved += 1
                    draft.starved_context += self._wait_a_step(request)
            elif request.number in self._prompts and draft.budget > 0:
                self._continue(request, draft)

    def _continue(self, request: Request, draft: Draft) -> None:
        """More of a prompt that was begun."""
        new = min(request.want - request.computed, draft.budget)
        new, images = self._pictures(request, request.computed, new, draft)
        if not new:
            return
        while not self._grow(request, request.computed + new):
            if self._preempt() is request:
                return
        self._take(request, new, images, draft)

    def _admit(self, draft: Draft) -> None:
        while self.waiting and draft.budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            runs = request.runs[: self.kv.found(request.runs)]
            while (cached := sum(blocks for _, blocks in runs) * BLOCK_SIZE) >= request.want:
                runs = runs[:-1]
            new = min(request.want - cached, draft.budget)
            new, images = self._pictures(request, cached, new, draft)
            blocks = -(-request.want // BLOCK_SIZE) - cached // BLOCK_SIZE  # scheduler_reserve_full_isl
            if not new or blocks + self.kv.unheld(runs) > self.kv.free:
                for index in range(len(request.images)):
                    self._release_picture(request, index)
                return
            self.waiting.popleft()
            self.running[request.number] = self._prompts[request.number] = request
            self.kv.hold(runs)
            request.runs_held = len(runs)
            request.computed = cached
            self.images += len(request.images)
            draft.admitted += sum(image.picture.patches for image in request.images)
            self.asked_tokens += request.want
            self.found_tokens += cached
            if not self._grow(request, cached + new):
                raise AssertionError("blocks were counted wrongly")
            self._take(request, new, images, draft)

    def _pictures(self, request: Request, start: int, new: int, draft: Draft) -> tuple[int, list[int]]:
        """How many of `new` tokens from `start` can be computed, and the pictures that the vision tower must see."""
        images: list[int] = []
        promised = 0
        for index, (begin, end) in enumerate(request.spans):
            if end <= start or begin >= start + new:
                continue
            image = request.images[index]
            if any(request.images[other].number == image.number for other in images):
                continue
            if self.encoder.use(image.number, request.number):
                continue
            tokens = image.picture.tokens
            if not self.encoder.make_room(tokens, draft.encoder_budget - promised, promised):
                return max(0, begin - start), images
            promised += tokens
            images.append(index)
        return new, images

    def _take(self, request: Request, new: int, images: list[int], draft: Draft) -> None:
        """Puts `new` tokens of a prompt, and these pictures of it, into the step."""
        for index in images:
            image = request.images[index]
            self.encoder.add(image.number, image.picture.tokens, request.number)
            draft.encoder_budget -= image.picture.tokens
            draft.images.append(image.picture.patches)
        self.encoded += len(images)
        draft.budget -= new
        draft.tokens += new
        draft.pairs += new * (request.computed + (new + 1) / 2)
        request.computed += new
        begun = request.computed - new
        draft.seen += [(request, at) for at, (_, end) in enumerate(request.spans) if begun < end <= request.computed]
        if request.computed >= request.want:
            draft.finished.append(request)

    def _grow(self, request: Request, tokens: int) -> bool:
        """Blocks up to this length; pictures that are wholly in them can be found by others from now on."""
        held = request.nameless + sum(blocks for _, blocks in request.runs[: request.runs_held])
        blocks = max(0, -(-tokens // BLOCK_SIZE) - held)
        if not self.kv.take(blocks):
            return False
        request.nameless += blocks
        full = tokens // BLOCK_SIZE - sum(blocks for _, blocks in request.runs[: request.runs_held])
        for key, size in request.runs[request.runs_held :]:
            if size > full or not self.kv.name(key, size):
                break
            full -= size
            request.nameless -= size
            request.runs_held += 1
        return True

    # The way back

    def _preempt(self) -> Request:
        """The request that came last gives everything back and waits in front."""
        last = next(each for each in reversed(self.running.values()) if each.generated < each.output_tokens)
        request = self.running.pop(last.number)
        self._prompts.pop(request.number, None)
        if request.is_decoding:
            self._stop_decoding(request, self._number)
        self._release(request)
        request.turn = -1
        request.computed = 0
        request.want = request.prompt_tokens + request.generated
        self.waiting.appendleft(request)
        self.preemptions += 1
        return request

    def _release(self, request: Request) -> None:
        for index in range(len(request.images)):
            self._release_picture(request, index)
        self.kv.give_back(request.nameless, request.runs[: request.runs_held])
        request.nameless = request.runs_held = 0

    def _release_picture(self, request: Request, index: int) -> None:
        image = request.images[index]
        self.encoder.release(image.number, image.picture.tokens, request.number)
