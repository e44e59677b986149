@echo off
rem Create a video of dreamed frames.  Usage: 3-create.bat [DREAMS [VIDEO]]
setlocal DisableDelayedExpansion
set "DREAMS=%~1"
if not defined DREAMS set "DREAMS=Output"
set "VIDEO=%~2"
if not defined VIDEO set "VIDEO=Video.mp4"
set "PYTHON=%~dp0..\.venv\Scripts\python.exe"
if not exist "%PYTHON%" set "PYTHON=python"
rem A backslash before the closing quote would quote the quote.
if "%DREAMS:~-1%"=="\" set "DREAMS=%DREAMS%\"
"%PYTHON%" "%~dp0..\dreamer.py" -c 1 --input="%DREAMS%" --output="%VIDEO%"
exit /b %ERRORLEVEL%
