"""The wordings of every question, and the way people bend them. Placeholders are filled by `questions.py`."""

from __future__ import annotations

import random

READ = (
    "Read the text in the image.", "Read all the text in the image.", "What does the image say?", "What text is shown?",
    "What is written in the picture?", "What does it say?", "Please read the text.",
    "Extract the text from this image.",
    "Transcribe the text in this image.", "OCR this image.", "What is the text in the image?", "Read this.",
    "Please output only the text content from the image without any additional descriptions or formatting.",
    "Write out everything that is written here.", "Can you read this for me?", "Give me the text content of the image.",
    "What words are in the image?", "Tell me what is written.", "Extract all text.", "Return the text of this picture.",
    "Output the text in the picture.", "What can you read in the picture?", "Type out the text that you see.",
    "Perform OCR on this image.", "What is written here?", "Read out what the picture says.",
    "Copy the text from the image.",
)  # fmt: skip
NUMBER = (
    "What number is shown?", "Read the number.", "Which number do you see?", "What is the number in the image?",
    "What number is this?", "Which number is in the picture?", "Tell me the number.", "What is the number?",
    "What digits are shown?", "Read the digits in the picture.", "What number does the image show?",
    "Give me the number.",
    "Please read the number in this image.", "Which digits can you see?", "What number is written here?",
    "Can you read the number?", "Extract the number from the image.", "Output the number that is shown.",
    "Return the number in the image.", "Read the digits.", "Can you tell me the number?", "What number can you see?",
    "Which number is this?", "What is the number in this picture?", "Which number is written here?",
    "What number appears in the picture?", "Number?",
)  # fmt: skip
WORD = (
    "What word is shown?", "Read the word.", "Which word do you see?", "What is the word in the image?",
    "What word is this?", "Which word is in the picture?", "Tell me the word.", "What is the word?",
    "Give me the word.",
    "What word does the image show?", "Please read the word in this image.", "What word is written here?",
    "Can you read the word?", "Extract the word from the image.", "Output the word that is shown.",
    "Return the word in the image.", "What word appears in the picture?", "What is the word written in the picture?",
    "Which word is written?", "Can you tell me the word?", "What word can you see?", "What does the word say?",
    "Which word is this?", "Show me the word as text.", "Read out the word.",
)  # fmt: skip
WORD_BOX = (
    "Read the word and give its box.", "Read the word and give its bounding box as JSON.",
    "Read the {thing} and give its bounding box as JSON.", "Read the {thing} and give its box.",
    "Read the {thing} and give its bounding box.", "What {thing} is shown and where? Answer as JSON.",
    "Give the {thing} and its bounding box in JSON format.", "Read the {thing} and locate it.",
    "Find the {thing}, output its text and bbox coordinates using JSON format.",
    "Where is the {thing} and what does it say?",
    "Read the {thing} and output its bounding box in JSON.", "Return the {thing} with its bbox_2d as JSON.",
    "Detect the {thing} and output the bounding box and the content as JSON.", "Locate and read the {thing}.",
    "Output the {thing} and its position in JSON format.",
    "Locate the {thing}, output its bbox coordinates using JSON format.",
    "Detect the {thing} in the image and return its location as JSON.", "Where is the {thing}?",
)  # fmt: skip
SPOT = (
    "Spotting all the text in the image with line-level, and output in JSON format.",
    "Spot all the text in the image with line-level, and output in JSON format.",
    "Spot all text lines and output them in JSON format.",
    "Detect all text lines and give their bounding boxes as JSON.",
    "Find all the text in the image and output bounding boxes in JSON format.",
    "List every line of text with its bounding box as JSON.", "Locate all the text lines in JSON format.",
    "Output all text with bbox_2d and text_content as JSON.", "Where is the text? Give line-level boxes in JSON.",
    "Detect the text in the image and output line-level boxes and content as JSON.",
    "Give all text lines with their positions in JSON format.",
    "Text spotting: output every line as JSON with its box.",
    "Read all the text and give the bounding box of every line as JSON.",
    "Return each line of text and its bounding box in JSON.",
    "Please spot the text line by line and answer in JSON format.",
)  # fmt: skip
COLOUR = (
    "What color is the {shape}?", "What colour is the {shape}?", "Which color does the {shape} have?",
    "What is the color of the {shape}?", "What is the colour of the {shape}?", "Tell me the color of the {shape}.",
    "Name the color of the {shape}.", "Which colour is the {shape}?", "The {shape} is what color?",
    "Give me the {shape}'s color.", "What color is this {shape}?", "Color of the {shape}?",
    "Say the color of the {shape}.",
    "In what color is the {shape} drawn?", "Can you tell me the color of the {shape}?",
    "What color does the {shape} have?", "I need the color of the {shape}.", "What's the color of the {shape}?",
    "Which color is the {shape} in the picture?",
)  # fmt: skip
SHAPE = (
    "What shape is it?", "What shape is shown?", "Which shape is in the image?", "What shape do you see?",
    "What shape is this?", "Name the shape.", "What is the shape in the picture?", "Which shape is it?",
    "Tell me the shape.", "What kind of shape is this?", "What geometric shape is shown?",
    "What form does the object have?", "Can you tell me the shape?", "Which shape is it in the image?",
    "Identify the shape.", "What shape can you see?", "Which shape can you see in the picture?",
    "Say which shape it is.", "What is the name of the shape?", "What shape does the object have?",
    "Which shape do you see in the picture?", "What shape does the image show?",
)  # fmt: skip
SHAPE_OF = (
    "What shape is {colour}?", "Which shape is {colour}?", "What is the {colour} shape?",
    "What shape is the {colour} object?",
    "Name the {colour} shape.", "What kind of shape is the {colour} one?", "Which shape has the color {colour}?",
    "The {colour} object is what shape?", "What is the shape of the {colour} object?",
)  # fmt: skip
DESCRIBE = (
    "Describe the image.", "Describe this picture.", "What is in the image?", "What do you see?", "What is shown?",
    "What is in the picture?", "What does the picture show?", "Describe what you see.",
    "Give a caption for this image.",
    "What can you see in this image?", "Please describe the picture.", "What is this?", "Tell me what is in the image.",
    "Write a short caption.", "Caption this image.", "Describe the image in one sentence.", "What's in this image?",
)  # fmt: skip
COUNT = (
    "How many {things} are there?", "Count the {things}.", "How many {things} do you see?",
    "How many {things} are in the image?",
    "What is the number of {things}?", "How many {things} are in the picture?", "Count the {things} in the image.",
    "How many {things} does the image show?", "Tell me how many {things} there are.", "How many {things} can you see?",
    "Please count the {things}.", "Number of {things}?", "Give me the number of {things}.", "How many {things}?",
    "What is the count of {things} in the picture?", "How many {things} are shown?",
    "How many {things} are there in total?", "How many {things} do you count?", "Count the {things} you see.",
    "Can you count the {things}?", "How many {things} are in this image?", "What is the total number of {things}?",
    "Count all the {things}.",
)  # fmt: skip
LOCATE = (
    "Locate the {thing}, output its bbox coordinates using JSON format.", "Locate the {thing} in the image.",
    "Locate the {thing}, output bbox_2d in JSON.", "Where is the {thing}? Answer with a bounding box in JSON.",
    "Find the {thing} and output its bounding box as JSON.", "Detect the {thing} and give its bbox in JSON format.",
    "Give the bounding box of the {thing}.", "Output the bounding box of the {thing} in JSON format.",
    "Give me the bbox of the {thing} as JSON.", "Return the coordinates of the {thing} in JSON.", "Box the {thing}.",
    "Draw a box around the {thing}: output its coordinates as JSON.", "Ground the {thing}.", "Find the {thing}.",
    "Outline the position of the {thing} and output the coordinates in JSON format.", "Where is the {thing}?",
    "Detect the {thing} in the image and return its location in the form of coordinates.",
    "Please locate the {thing} and output the bbox coordinates in JSON format.",
    "What is the bounding box of the {thing}?",
)  # fmt: skip
LOCATE_ALL = (
    "Locate every {thing}, output the bbox coordinates using JSON format.",
    "Detect all {things} and output their boxes in JSON format.",
    "Locate all {things}, report bbox coordinates in JSON format.",
    "Find all the {things} and give their bounding boxes as JSON.",
    "Give the bounding boxes of all {things}.",
    "Detect all {things} in the image and return their locations in the form of coordinates.",
    "Output the bounding boxes of the {things} in JSON format.", "Box all the {things}.",
    "Where are the {things}? Answer in JSON.",
    "List every {thing} with its bbox_2d as JSON.",
    "Please locate all {things} and output the bbox coordinates in JSON format.",
)  # fmt: skip
EXISTS = (
    "Is there a {thing}?",
    "Is there a {thing} in the image?",
    "Do you see a {thing}?",
    "Does the picture show a {thing}?",
    "Can you see a {thing} in the picture?",
)
HAS_TEXT = (
    "Is there any text in the image?",
    "Is there text in the picture?",
    "Does the image contain text?",
    "Do you see any text?",
    "Is anything written here?",
)
LARGER_SHAPE = (
    "Which is bigger, the {a} or the {b}?",
    "Which one is larger, the {a} or the {b}?",
    "Is the {a} or the {b} bigger?",
    "Which shape is larger: the {a} or the {b}?",
)
RELATION = (
    "Is the {a} to the left or to the right of the {b}?",
    "Is the {a} left or right of the {b}?",
    "On which side of the {b} is the {a}, left or right?",
)
VERTICAL = ("Is the {a} above or below the {b}?", "Is the {a} higher or lower than the {b}: above or below?")
LINE_COUNT = (
    "How many lines of text are there?",
    "How many lines are in the image?",
    "Count the lines of text.",
    "How many text lines do you see?",
)
LINE_AT = (
    "What is the {ordinal} line?",
    "Read the {ordinal} line.",
    "What does the {ordinal} line say?",
    "Which text is in the {ordinal} line?",
    "Give me the {ordinal} line of text.",
)
FIELDS = {
    "invoice_number": (
        "What is the invoice number?", "Which invoice number is it?", "Read the invoice number.", "Invoice number?",
        "Tell me the invoice number.", "What is the number of this invoice?", "Give me the invoice number.",
        "Extract the invoice number.",
        "What's the invoice no?", "Find the invoice number.", "What is the invoice ID?",
        "Which number does this invoice have?",
        "What is the invoice no.?", "Please give the invoice number.", "What is the document number?",
    ),
    "date": (
        "What is the date?", "What is the invoice date?", "When was the invoice issued?",
        "Which date is on the invoice?",
        "Read the date.", "Tell me the date of the invoice.", "What date is shown?", "Date?",
        "Give me the invoice date.",
        "Extract the date.", "When was this issued?", "What's the date on the invoice?",
        "From what date is this invoice?",
        "Find the date of this invoice.", "What is the issue date?",
    ),
    "total": (
        "What is the total?", "What is the total amount?", "How much is the invoice?", "What is the amount due?",
        "Read the total.", "Tell me the total amount.", "How much is to be paid?", "What is the sum?", "Total?",
        "Give me the total.",
        "Extract the total amount.", "What do I have to pay?", "How much do I owe?", "What is the grand total?",
        "What's the total?",
        "What is the final amount?",
    ),
    "vendor": (
        "Who is the vendor?", "Which company issued the invoice?", "What is the company name?",
        "Who sent this invoice?",
        "Who is the seller?", "What company is this invoice from?", "Read the company name.", "Name the vendor.",
        "Who issued this?",
    ),
    "due_date": ("What is the due date?", "When is the invoice due?", "When must it be paid?",
    "By when do I have to pay?", "Due date?"),
    "customer": ("Who is the customer?", "Who is the invoice for?", "What is the customer's name?", "Who is billed?"),
}  # fmt: skip
FIELD_NAMES = {
    "invoice_number": "invoice number",
    "date": "date",
    "total": "total",
    "vendor": "vendor",
    "due_date": "due date",
    "customer": "customer",
}
INVOICE_JSON = (
    "Extract the invoice number, date and total as JSON.", "Extract the fields as JSON.",
    "Extract the invoice fields as JSON.",
    "Give me the invoice number, the date and the total in JSON format.", "Read the invoice and output JSON.",
    "Return the invoice data as JSON.", "Output invoice number, date and total as JSON.",
    "Extract invoice_number, date and total.",
    "Parse this invoice to JSON.", "Extract the key information as JSON.",
    "What are the invoice number, date and total? Answer in JSON.",
    "Please extract the invoice number, date and total amount in JSON format.",
    "Get the invoice number, date and total as JSON.",
    "Extract the key fields of this invoice as JSON.", "Extract the invoice data in JSON format.",
    "Summarize the invoice as JSON.",
    "Extract number, date and total from this invoice as JSON.",
    "Read this receipt and give number, date and total as JSON.",
)  # fmt: skip
SKELETON = (
    "Extract the key-value information in the format:{json}", "Extract the key-value information in the format: {json}",
    "Fill in this JSON from the image: {json}", "Return JSON of this form: {json}",
    "Extract the information in the format:{json}",
    "Extract the fields in this format: {json}", "Please fill in {json}", "Output the key information as {json}",
    "Extract the key information as JSON with these keys: {json}", "Answer with this JSON filled in: {json}",
)  # fmt: skip
KEY_NAMES = {
    "invoice_number": ("invoice_number", "invoice_no", "number", "invoice_id", "no"),
    "date": ("date", "invoice_date", "issue_date"),
    "total": ("total", "amount", "total_amount", "amount_due", "sum"),
    "vendor": ("vendor", "company", "seller", "company_name", "store"),
}
# "Can you tell me" + "the date": more ways to ask for a value than anyone would list.
WANTED = (
    "Can you tell me {noun}?", "Please tell me {noun}.", "Let me know {noun}.", "I want {noun}.",
    "I would like to have {noun}.",
    "Do you know {noun}?", "Find out {noun}.", "Show me {noun}.", "Report {noun}.", "Identify {noun}.",
    "I am looking for {noun}.",
    "Write down {noun}.", "Please provide {noun}.", "Would you read {noun}?", "Get {noun} from the picture.",
    "I ask for {noun}.",
    "Can I have {noun}?", "What would you say is {noun}?", "Look up {noun} in the image.", "Can you see {noun}?",
    "Print {noun}.",
)  # fmt: skip
NOUNS = {
    "number": ("the number", "the number in the picture", "the number that is shown", "which number it is",
    "what number is here"),
    "word": ("the word", "the word in the picture", "the word that is shown", "which word it is", "what word is here"),
    "read": ("the text", "the text in the picture", "what is written", "what it says", "what is written in the image"),
    "ocr": ("the text", "the whole text", "all the text in the picture", "what is written",
    "everything that is written"),
    "colour": ("the color of the {shape}", "the {shape}'s color", "what color the {shape} is",
    "which color the {shape} has"),
    "count": ("the number of {things}", "how many {things} there are", "how many {things} you see",
    "the count of {things}"),
    "count_kind": ("the number of {things}", "how many {things} there are", "how many {things} you see",
    "the count of {things}"),
    "field_invoice_number": ("the invoice number", "the number of the invoice", "the invoice no",
    "which invoice this is"),
    "field_date": ("the date", "the invoice date", "the date on the invoice", "when it was issued",
    "the date of issue"),
    "field_total": ("the total", "the total amount", "the amount due", "how much it is", "the sum to pay",
    "what it costs", "the price"),
    "field_vendor": ("the vendor", "the company", "the name of the company", "who sent it", "the seller"),
    "field_due_date": ("the due date", "when it is due"),
    "field_customer": ("the customer", "the name of the customer"),
}  # fmt: skip
UNKNOWN = (
    "Who is the person in the picture?", "Is this a cat or a dog?", "What is the weather like?",
    "Which animal is this?",
    "What city is this?", "How old is the person?", "What brand is the car?", "Is it day or night?",
    "What is the person doing?",
    "Which bird is this?", "What food is on the table?", "How many people are there?",
    "What emotion does the face show?",
)  # fmt: skip
CANNOT = "I can only read text, numbers, shapes and invoices."
SYSTEM = (
    "You are a careful OCR engine.", "You read documents.", "Answer briefly.",
    "You are an assistant that reads images.",
    "You are a helpful vision assistant. Answer in as few words as possible.", "Be precise.",
    "You are Qwen, a helpful assistant.",
    "You extract data from invoices.", "You are an AI specialized in recognizing and extracting text from images.",
    "Reply only with the answer.", "You help a blind user.", "You are a helpful and honest assistant.",
)  # fmt: skip
BEFORE = (
    "Please ",
    "Hi! ",
    "Hello, ",
    "Can you help? ",
    "OK. ",
    "Now: ",
    "And ",
    "Look at the image. ",
    "Look at this picture. ",
    "Question: ",
    "Thanks. ",
    "Next: ",
    "Here is an image. ",
    "Tell me: ",
    "I want to know: ",
    "Quick question: ",
)
AFTER = (
    " Please.",
    " Thanks!",
    " Answer briefly.",
    " Only the answer.",
    " Answer with one word or number.",
    " Be exact.",
    " Thank you.",
    " Just the answer, please.",
    " Keep it short.",
)


def bend(rng: random.Random, question: str, plain: float = 0.62) -> str:
    """Return a question as a hurried or polite person might put it; unchanged with probability PLAIN."""
    if rng.random() < plain:
        return question
    if "{" in question:
        return rng.choice(BEFORE) + question
    style = rng.random()
    if style < 0.25:
        return rng.choice(BEFORE) + (question[0].lower() + question[1:] if rng.random() < 0.5 else question)
    if style < 0.45:
        return question + rng.choice(AFTER)
    if style < 0.65:
        return question.rstrip(".?")
    if style < 0.8:
        return question.lower()
    if style < 0.9:
        return question.lower().rstrip(".?")
    return (
        question.replace("image", "picture").replace("Image", "Picture")
        if "image" in question
        else question.replace("picture", "photo")
    )
