@echo off
rem Extract the frames of a video.  Usage: 1-extract.bat [VIDEO [FRAMES]]
setlocal DisableDelayedExpansion
set "VIDEO=%~1"
if not defined VIDEO set "VIDEO=RHI-20Sec.mov"
set "FRAMES=%~2"
if not defined FRAMES set "FRAMES=Input"
set "PYTHON=%~dp0..\.venv\Scripts\python.exe"
if not exist "%PYTHON%" set "PYTHON=python"
rem A backslash before the closing quote would quote the quote.
if "%FRAMES:~-1%"=="\" set "FRAMES=%FRAMES%\"
"%PYTHON%" "%~dp0..\dreamer.py" -e 1 --input="%VIDEO%" --output="%FRAMES%"
exit /b %ERRORLEVEL%
